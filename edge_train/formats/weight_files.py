"""Which files of a folder hold its weights and configuration; pickles are refused."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError
from edge_train.formats.inside import wrong_place
from edge_train.formats.json_text import read_text
from edge_train.formats.tensor_file import TensorFile

Config = Mapping[str, Any]
_STEMS = ("model", "diffusion_pytorch_model")
VARIANTS = ("", ".fp32", ".bf16", ".fp16")  # the plain files first
_READ_BYTES = 1 << 20
_MOST_JSON_BYTES = 256_000_000  # the largest published index and tokenizer have a tenth
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def read_json(path: Path, folder: Path | None = None) -> Config:
    """Return the JSON object in a file of a model.

    Args:
      folder: the model's, which the file must lie in; None: the file's own.

    Raises:
      ModelError: it cannot be read, lies elsewhere, or is no JSON object.
    """
    check_place(path, folder or path.parent)
    try:
        if (size := path.stat().st_size) > _MOST_JSON_BYTES:
            raise ValueError(f"{size} bytes, at most {_MOST_JSON_BYTES} are expected")
        content = read_text(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); copy or download the model again."
        ) from error
    except ValueError as error:
        raise ModelError(
            f"{path}: not valid JSON ({error}); copy or download the model again."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path}: holds a {type(content).__name__}, expected a JSON object; "
            "copy or download the model again."
        )
    return content


def check_place(path: Path, folder: Path) -> None:
    """Refuse a file of a model that no one should open.

    Raises:
      ModelError: a link leads out of the folder, or it is a folder, pipe or device.
    """
    if reason := wrong_place(path, folder):
        raise ModelError(f"{path}: cannot be read ({reason}).")


def open_weights(folder: Path, model: Path | None = None) -> tuple[TensorFile, ...]:
    """Return the opened weight files of a component.

    Args:
      folder: of the component.
      model: the whole folder that was named, if that is another one.

    Raises:
      ModelError: there is none, only pickle files, or one that is damaged or lies elsewhere.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    paths = [folder / name for name in choose_weights(names, folder)]
    for path in paths:
        check_place(path, model or folder)
    return tuple(TensorFile(path) for path in paths)


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
