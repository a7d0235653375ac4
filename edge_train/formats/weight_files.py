"""Which files of a folder hold its weights and configuration; pickles are refused."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError

Config = Mapping[str, Any]
_STEMS = ("model", "diffusion_pytorch_model")
VARIANTS = ("", ".fp32", ".bf16", ".fp16")  # the plain files first
_READ_BYTES = 1 << 20
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def read_json(path: Path) -> Config:
    """Return the JSON object in a file.

    Raises:
      ModelError: it cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); copy or download the model again."
        ) from error
    except ValueError as error:
        raise ModelError(
            f"{path}: not valid JSON ({error}); copy or download the model again."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds a {type(content).__name__}, expected a JSON object.")
    return content


def choose_weights(names: set[str], folder: Path) -> list[str]:
    """Return which of the files of a component to load: plain ones before variants.

    Args:
      names: what the folder holds, on disk or on the hub.
      folder: for messages, and where on disk the index of a sharded component is read.

    Raises:
      ModelError: there is none, or only pickle files.
    """
    for variant in VARIANTS:
        for stem in _STEMS:
            if f"{stem}{variant}.safetensors" in names:
                return [f"{stem}{variant}.safetensors"]
            index = f"{stem}.safetensors.index{variant}.json"
            if index in names:
                return _shards(folder / index)
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles:
        raise ModelError(
            f"{folder}: only {pickles[0]}, a pickle file, which can run any code and is never "
            "loaded; take the safetensors version of this model, or convert it where you trust "
            "it: `save_pretrained(DIR, safe_serialization=True)` of transformers or diffusers."
        )
    raise ModelError(f"{folder}: no .safetensors file; copy or download the model again.")


def _shards(path: Path) -> list[str]:
    """Return the file names in the index of a sharded component."""
    shards = read_json(path).get("weight_map")
    names = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
    if not names or any(Path(name).name != name for name in names):
        raise ModelError(f"{path}: lists no files of this folder; download the model again.")
    return sorted(names)


def hash_of(files: Iterable[tuple[str, Path]]) -> str:
    """Return one sha256 over names and contents of files, read a megabyte at a time."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\0".encode())
        for block in blocks_of(path):
            digest.update(block)
    return digest.hexdigest()


def blocks_of(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, a megabyte at a time."""
    with path.open("rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            yield block
