"""How other programs load a learned token: the lines to type, ready to copy."""

import json
import re
import shlex
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from edge_train.errors import EdgeTrainError, ModelError
from edge_train.formats.artifact import exported_from, is_artifact
from edge_train.formats.embedded import EMBEDDED
from edge_train.records.folder import RunFolder
from edge_train.tasks import read_recipe

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def model_for_others(run: Path, named: str, *, exported: bool) -> str | None:
    """Return where other programs find the model of a run: the one that was exported, if it was.

    Args:
      run: its folder, whose recipe has whole paths.
      named: how the run was told of the model.
      exported: whether that is an artifact, which no other program reads.

    Returns:
      A folder or a hub id; None where an artifact does not say, or its model is not there.
    """
    with suppress(EdgeTrainError):
        named = read_recipe(RunFolder(run).recipe).model
    if named == EMBEDDED:
        return named
    try:
        path = Path(named).expanduser()
        return _known(exported_from(path), path) if exported or is_artifact(path) else named
    except (OSError, ValueError, RuntimeError, ModelError):  # nothing can be read under this name
        return None if exported else named


def _known(model: str, artifact: Path) -> str | None:
    """Return what an artifact was exported from, where it is there or a hub id.

    Args:
      model: as the artifact says it: a folder by its name, which is looked for beside the artifact;
        in earlier versions by its whole path.
    """
    if model == EMBEDDED or _HUB_ID.fullmatch(model):
        return model
    folder = Path(model).expanduser()
    if len(folder.parts) == 1 and folder.name:
        folder = artifact.resolve().parent / folder
    there = folder.is_absolute() and (folder / "model_index.json").is_file()
    return str(folder) if there else None


def ways_to_load(file: Path, token: str, model: str | None) -> list[tuple[str, str]]:
    """Return (program, lines to type) for every program that reads the token's file.

    Args:
      file: the `.safetensors` file of the run; its stem is the word outside diffusers.
      token: how the token is spelled in diffusers.
      model: name or folder of the model that it was learned on; None: nobody knows.
    """
    name, prompt = shlex.quote(file.name), f"a photo of a {file.stem}"
    copy, command = f"mkdir embeddings\ncp {name} embeddings/", "sd -m MODEL --embd-dir embeddings"
    return [
        ("edge-train", f"edge-train generate . --prompt {shlex.quote(f'a photo of a {token}')}"),
        ("diffusers", _diffusers(file, token, model)),
        ("A1111, Forge", f"cp {name} embeddings/\n# then prompt: {prompt}"),
        (
            "ComfyUI",
            f"cp {name} models/embeddings/\n# then prompt: a photo of a embedding:{file.stem}",
        ),
        ("stable-diffusion.cpp", f"{copy}\n{command} -p {shlex.quote(prompt)}"),
    ]


def ways_to_load_lora(
    folder: Path, name: str, trigger: str, model: str | None
) -> list[tuple[str, str]]:
    """Return (program, lines to type) for every program that reads the two files of a LoRA.

    Args:
      folder: of the LoRA, in the folder of its run.
      name: stem of the file with kohya's names.
      trigger: the words that prompts say for what was learned.
    """
    file = shlex.quote(f"{folder.name}/{name}.safetensors")
    prompt = f"a photo of a {trigger}"
    tagged = f"{prompt} <lora:{name}:1>"
    return [
        ("edge-train", f"edge-train generate . --prompt {shlex.quote('a photo of a {}')}"),
        ("diffusers", _diffusers_lora(folder, prompt, model)),
        ("A1111, Forge", f"cp {file} models/Lora/\n# then prompt: {tagged}"),
        ("ComfyUI", f"cp {file} models/loras/\n# then a Load LoRA node, and prompt: {prompt}"),
        (
            "stable-diffusion.cpp",
            f"mkdir loras\ncp {file} loras/\n"
            f"sd -m MODEL --lora-model-dir loras -p {shlex.quote(tagged)}",
        ),
    ]


def _diffusers_lora(folder: Path, prompt: str, model: str | None) -> str:
    lines = ["import torch", "from diffusers import DiffusionPipeline"]
    start, found = _model_lines(model)
    lines = [*start, *lines, "", f"model = {found}"]
    lines.append("pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)")
    lines.append(f"pipe.load_lora_weights({_quoted(folder.name)})")
    return "\n".join([*lines, f'pipe({_quoted(prompt)}).images[0].save("picture.png")'])


def _model_lines(model: str | None) -> tuple[list[str], str]:
    """Return what to import to find a model, and where it is."""
    if model is None:
        return [], '"MODEL"  # the folder or hub id of the model that was exported'
    if model != EMBEDDED:
        return [], _quoted(model)
    where = 'Path(edge_train.__file__).parent / "data" / "tiny_sd"'
    return ["from pathlib import Path", "import edge_train"], where


def _diffusers(file: Path, token: str, model: str | None) -> str:
    word, path = _quoted(token), _quoted(file.name)
    prompt = _quoted(f"a photo of a {token}")
    two = _has_two_encoders(file)
    lines = ["import torch", "from diffusers import DiffusionPipeline"]
    if two:
        lines.append("from safetensors.torch import load_file")
    start, folder = _model_lines(model)
    lines = [*start, *lines, "", f"model = {folder}"]
    lines.append("pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)")
    if two:
        lines += [
            f"vectors = load_file({path})",
            f'pipe.load_textual_inversion(vectors["clip_l"], token={word})',
            f'pipe.load_textual_inversion(vectors["clip_g"], token={word},',
            "    text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)",
        ]
    else:
        lines.append(f"pipe.load_textual_inversion({path}, token={word})")
    return "\n".join([*lines, f'pipe({prompt}).images[0].save("picture.png")'])


def _quoted(text: str) -> str:
    """Return `text` as a Python string in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _has_two_encoders(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy") as file:
            return "clip_g" in list(file.keys())
    except (OSError, ValueError, SafetensorError):  # a name may be no Unicode
        return False
