"""Files of a trained language model for other programs: adapters and merged models."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.export.adapter_changes import Change, changes_of
from edge_train.export.adapter_gguf import adapter_parts, place_of
from edge_train.export.merged_folder import write_merged
from edge_train.export.merged_gguf import KINDS, merged_parts
from edge_train.export.modelfile import modelfile
from edge_train.formats.adapter import Adapter
from edge_train.formats.atomic import check_free, whole_folder, write_bytes, write_parts
from edge_train.formats.chat_template import chat_template_of
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.gguf.weights import ARCHITECTURES, rows_as_stored
from edge_train.formats.language_folder import LanguageFolder
from edge_train.tasks.language_model.ends import begin_text, end_texts
from edge_train.tasks.language_model.kept import about_of
from edge_train.tasks.language_model.learned import Learned, base_of, learned_in
from edge_train.units import format_bytes

Say = Callable[[str], None]
ADAPTER_FILE, MODEL_FILE, MODELFILE = "adapter.gguf", "model.gguf", "Modelfile"
_HEAD = "lm_head"


def export_language_model(
    run: Path, out: Path, to: str, *, quant: str | None, base: str | None, say: Say
) -> None:
    """Write what a run learned as others load it.

    Args:
      run: the folder of a run, or of an adapter that peft reads.
      out: a file for `adapter-gguf` and `merged-gguf`, else a folder; whole or not at all.
      to: `adapter-gguf`, `merged`, `merged-gguf` or `ollama`.
      quant: f16 or q8_0, of matrices in a merged GGUF; None: f16, and for ollama the adapter.
      base: where the base is now; None: where it was.

    Raises:
      InputError: something is in the way, or the adapter, the base and the file do not go together.
      ModelError, RunFolderError: a file cannot be read or written.
    """
    quant = _checked_quant(quant, to)
    if to in ("merged", "ollama"):
        check_free(out)
    else:
        _check_no_file(out)
    learned = learned_in(run)
    if learned.prompt is not None:
        raise InputError(
            f"{run}: learned a prompt and changed no weights; prompt.txt in it is the text that "
            "stands as the system's message, and Modelfile, where it has one, is for Ollama."
        )
    if learned.adapter is None:
        raise InputError(
            f"{run}: all weights were trained, so {learned.model} is the whole model, which "
            "transformers loads and llama.cpp's convert_hf_to_gguf.py turns into a GGUF file."
        )
    export = _Export(run, learned, learned.adapter, base_of(learned, base), out, quant, say)
    {
        "adapter-gguf": _adapter_gguf,
        "merged": _merged,
        "merged-gguf": _merged_gguf,
        "ollama": _ollama,
    }[to](export)


@dataclass(frozen=True)
class _Export:
    """What goes where; `quant` is empty where none is written."""

    run: Path
    learned: Learned
    adapter: Adapter
    base: LanguageFolder
    out: Path
    quant: str
    say: Say


def write_adapter_gguf(
    out: Path, adapter: Adapter, blocks: Mapping[str, Array], base: LanguageFolder, name: str
) -> None:
    """Write the adapter file that llama.cpp loads beside a GGUF of the base.

    Raises:
      InputError: the adapter or the base has no such file, or they do not go together.
      RunFolderError: it cannot be written.
    """
    kind = _architecture(base)
    changes = changes_of(adapter, blocks)
    if base.made is not None:
        _in_file(changes, base)  # that every matrix is there, and fits
    else:
        _in_folder(changes, base)
    write_parts(
        out, adapter_parts(adapter, blocks, kind, base.config, name=name, base=_short(base))
    )


def _adapter_gguf(export: _Export) -> None:
    base, out = export.base, export.out
    out.parent.mkdir(parents=True, exist_ok=True)
    write_adapter_gguf(out, export.adapter, export.learned.blocks, base, export.learned.name)
    model = base.path if base.made is not None else "BASE.gguf"
    export.say(f"{_sized(out)}; load it beside its base: llama-cli -m {model} --lora {out}")


def _merged(export: _Export) -> None:
    base, out = export.base, export.out
    if base.made is not None:
        (file,) = base.files
        changes = {}
        for layer, change in changes_of(export.adapter, export.learned.blocks).items():
            _check_fits(layer, change, file.entries.get(f"{layer}.weight"), base)
            changes[file.path, f"{layer}.weight"] = change
        needed = sum(entry.nbytes for entry in file.entries.values()) // 2
    else:
        changes = _in_folder(changes_of(export.adapter, export.learned.blocks), base)
        needed = sum(file.path.stat().st_size for file in base.files)
    _check_space(out, needed)
    with whole_folder(out) as folder:
        write_merged(folder, base, changes)
    load = f"AutoModelForCausalLM.from_pretrained({str(out)!r})"
    export.say(f"{_sized(out)}; transformers loads it: {load}")


def _merged_gguf(export: _Export) -> None:
    export.out.parent.mkdir(parents=True, exist_ok=True)
    _write_merged_gguf(export, export.out)
    export.say(f"{_sized(export.out)}; llama-cli -m {export.out}")


def _ollama(export: _Export) -> None:
    base, out = export.base, export.out
    template = chat_template_of(base, datetime.now().astimezone())
    told: dict[str, Any] = {
        "begin": begin_text(base.tokenizer()),
        "stops": end_texts(base, template),
        "new_line": about_of(export.run).get("new_line") is True,
    }
    with whole_folder(out) as folder:
        if export.quant:
            _write_merged_gguf(export, folder / MODEL_FILE)
            text, said = modelfile(f"./{MODEL_FILE}", None, template, **told)
        else:
            where, name = folder / ADAPTER_FILE, export.learned.name
            write_adapter_gguf(where, export.adapter, export.learned.blocks, base, name)
            text, said = modelfile(str(base.path.resolve()), f"./{ADAPTER_FILE}", template, **told)
        write_bytes(folder / MODELFILE, text.encode())
    export.say(f"{_sized(out)}; ollama create NAME -f {out / MODELFILE}")
    if said:
        export.say(said)


def _write_merged_gguf(export: _Export, out: Path) -> None:
    base = export.base
    if base.made is None:
        raise InputError(
            f"{base.path}: a merged GGUF is made of a base in GGUF; write the folder with --to "
            "merged, which llama.cpp's convert_hf_to_gguf.py turns into one."
        )
    changes = _in_file(changes_of(export.adapter, export.learned.blocks), base)
    file = GgufFile(base.path)
    _check_space(out, file.path.stat().st_size + sum(2 * _numbers(c) for c in changes.values()))
    write_parts(out, merged_parts(file, changes, export.quant, export.learned.name))


def _in_file(changes: Mapping[str, Change], base: LanguageFolder) -> dict[str, Change]:
    """Return what becomes of the tensors of a GGUF file, their rows in its order.

    Raises:
      InputError: it has no such tensor.
    """
    kind, file = _architecture(base), GgufFile(base.path)
    found = {}
    for layer, change in changes.items():
        place = place_of(layer, kind)
        _check_fits(layer, change, file.tensors.get(place), base)
        found[place] = change.in_order(rows_as_stored(layer, kind, base.config, change.shape[0]))
    return found


def _in_folder(
    changes: Mapping[str, Change], base: LanguageFolder
) -> dict[tuple[Path, str], Change]:
    """Return what becomes of the tensors of a folder.

    Raises:
      InputError: it has no such tensor.
    """
    stored = {name: file for file in base.files for name in file.entries}
    found = {}
    for layer, change in changes.items():
        names = (f"{layer}.weight", f"{layer.partition('.')[2]}.weight")  # hubs' without its start
        name = next((name for name in names if name in stored), names[0])
        if layer == _HEAD and base.config.get("tie_word_embeddings", True):
            name = ""  # to change it alone would part it from the table of tokens
        entry = stored[name].entries[name] if name in stored else None
        _check_fits(layer, change, entry, base)
        found[stored[name].path, name] = change
    return found


def _check_fits(layer: str, change: Change, stored: object, base: LanguageFolder) -> None:
    shape = getattr(stored, "shape", None)
    if shape is None:
        raise InputError(
            f"the adapter changes layer {layer!r}, which {base.path} does not store; it belongs to "
            "another model, which --base names."
        )
    if shape != change.shape:
        raise InputError(
            f"the adapter changes layer {layer!r} of {list(change.shape)}, and {base.path} has "
            f"{list(shape)}; it belongs to another model, which --base names."
        )


def _architecture(base: LanguageFolder) -> str:
    """Return what GGUF calls the kind of a model.

    Raises:
      InputError: it is none that we write.
    """
    kind = ARCHITECTURES.get(str(base.config.get("model_type")))
    if kind is None:
        raise InputError(
            f"{base.path}: a {str(base.config.get('model_type'))[:40]!r} is not written as GGUF, "
            f"only {', '.join(ARCHITECTURES)}; load the folder of the adapter with peft."
        )
    return kind


def _checked_quant(quant: str | None, to: str) -> str:
    if to not in ("merged-gguf", "ollama"):
        if quant is not None:
            raise InputError(f"--quant is not for --to {to}; leave it out.")
        return ""
    if quant is None:
        return "f16" if to == "merged-gguf" else ""
    if quant.lower() not in KINDS:
        raise InputError(f"quant {quant!r} is not for --to {to}; use {' or '.join(KINDS)}.")
    return quant.lower()


def _check_no_file(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists already; remove it, or name another file.")


def _check_space(out: Path, needed: int) -> None:
    place = next(folder for folder in out.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"{out}: needs about {format_bytes(needed)}, {place} has {format_bytes(free)} free; "
            "name a place on another disk."
        )


def _numbers(change: Change) -> int:
    rows, columns = change.shape
    return rows * columns


def _short(base: LanguageFolder) -> str:
    """Return a model's name without the folders above it, which are nobody's business."""
    return base.base if base.made is None and "/" not in base.base[:1] else base.path.name


def _sized(path: Path) -> str:
    files = path.rglob("*") if path.is_dir() else [path]
    return f"{path}: {format_bytes(sum(one.stat().st_size for one in files if one.is_file()))}"
