"""How other programs load a learned token: the lines to type, ready to copy."""

import json
import shlex
from pathlib import Path

from safetensors import SafetensorError, safe_open

from edge_train.formats.embedded import EMBEDDED


def ways_to_load(file: Path, token: str, model: str) -> list[tuple[str, str]]:
    """Return (program, lines to type) for every program that reads the token's file.

    Args:
      file: the `.safetensors` file of the run; its stem is the word outside diffusers.
      token: how the token is spelled in diffusers.
      model: name or folder of the model that it was learned on.
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


def _diffusers(file: Path, token: str, model: str) -> str:
    word, path = _quoted(token), _quoted(file.name)
    prompt = _quoted(f"a photo of a {token}")
    two = _has_two_encoders(file)
    lines = ["import torch", "from diffusers import DiffusionPipeline"]
    if two:
        lines.append("from safetensors.torch import load_file")
    if model == EMBEDDED:
        lines = ["from pathlib import Path", "import edge_train", *lines]
        folder = 'Path(edge_train.__file__).parent / "data" / "tiny_sd"'
    else:
        folder = _quoted(model)
    lines += ["", f"model = {folder}"]
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
