"""The learned token as a file that diffusers, A1111, ComfyUI and stable-diffusion.cpp load."""

from collections.abc import Mapping
from pathlib import Path

from edge_train.arrays.types import Array
from edge_train.formats.atomic import write_bytes
from edge_train.formats.tensor_store import to_safetensors


def write_token(
    folder: Path, name: str, token: str, blocks: Mapping[str, Array], facts: Mapping[str, str]
) -> list[Path]:
    """Write the learned vectors; return the files.

    One text encoder (Stable Diffusion 1.x and 2.x): `<name>.safetensors` with one key, the token's
    spelling, float32 (vectors, width). All four programs load a file with a single key; the file's
    name is the trigger word in A1111, ComfyUI and stable-diffusion.cpp.

    Two text encoders (XL): the single-key file for the first encoder that the contract names,
    `<name>.safetensors`, would be half a token, so that file carries the keys `clip_l` and `clip_g`
    which A1111, ComfyUI and diffusers' SDXL scripts read; metadata names the token.

    Args:
      blocks: "token" and, for XL, "token_2".
      facts: metadata strings (base model hash, steps, class word, version).
    """
    if "token_2" in blocks:
        tensors = {"clip_l": blocks["token"], "clip_g": blocks["token_2"]}
    else:
        tensors = {token: blocks["token"]}
    path = folder / f"{name}.safetensors"
    write_bytes(path, to_safetensors(tensors, {"format": "pt", "token": token, **facts}))
    return [path]
