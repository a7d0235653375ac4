"""What stands beside the weights of a result, so that transformers loads it as it was trained."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edge_train.errors import RunFolderError
from edge_train.formats.atomic import write_bytes
from edge_train.formats.model_texts import model_texts
from edge_train.formats.weight_files import read_json

CONFIG, _TOKENIZER = "config.json", "tokenizer_config.json"
_WHOLE_TOKENIZER = "tokenizer.json"
_TYPES = ("dtype", "torch_dtype")  # what transformers 5 and 4 call the type of weights


def write_texts(
    source: Path,
    folder: Path,
    changes: Mapping[str, Any],
    pad: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Copy tokenizer, templates and settings of a model into `folder`, which is made.

    Args:
      changes: keys of `config.json` with other values; None takes a key out, as it does that of
        code, which no result holds.
      pad: the token that fills short texts, for a tokenizer that names none.
      tokenizer: written as `tokenizer.json` where the model has only the files it was made of.

    Raises:
      RunFolderError: the folder cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        for path in model_texts(source):
            target = folder / path.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written ({error.strerror}).") from error
    if tokenizer is not None and not (source / _WHOLE_TOKENIZER).is_file():
        write_bytes(folder / _WHOLE_TOKENIZER, tokenizer.to_str(pretty=True).encode())
    write_config(source, folder, changes)
    if pad is not None and (source / _TOKENIZER).is_file():
        settings = read_json(source / _TOKENIZER)
        if not settings.get("pad_token"):
            _write(folder / _TOKENIZER, {**settings, "pad_token": pad})


def write_made(
    folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer, settings: Mapping[str, Any]
) -> None:
    """Write tokenizer, template and settings of a model that was no folder into a new one.

    Raises:
      RunFolderError: the folder cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written ({error.strerror}).") from error
    _write(folder / CONFIG, config)
    _write(folder / _TOKENIZER, settings)
    write_bytes(folder / _WHOLE_TOKENIZER, tokenizer.to_str(pretty=True).encode())


def write_config(source: Path, folder: Path, changes: Mapping[str, Any]) -> None:
    """Write `config.json` of `source` into `folder` with other values; None takes a key out."""
    gone = {"auto_map", *(name for name, value in changes.items() if value is None)}
    settings = {**read_json(source / CONFIG), **changes}  # its own nulls mean something
    _write(folder / CONFIG, {name: value for name, value in settings.items() if name not in gone})


def as_classifier(
    config: Mapping[str, Any], labels: Sequence[str], pad: int, architecture: str | None
) -> dict[str, Any]:
    """Return what training a classifier changes in a configuration.

    The names of its outputs, the id that filled short texts (without it, no batch can be taken),
    and float32, as its weights are stored.
    """
    changes: dict[str, Any] = {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "num_labels": None,  # follows from the names; both may contradict each other
        "pad_token_id": pad,
        **in_float32(config),
    }
    if architecture is not None:
        changes["architectures"] = [architecture]
    return changes


def in_float32(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change of a configuration whose weights are now stored in float32."""
    return {name: "float32" for name in _TYPES if config.get(name) is not None}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
