"""Tokens that were learned before with a model, from a folder: their vectors and class words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.tensor_store import read_tensors

LEAST = 8  # tokens; fewer say nothing of where others go
_MOST_BYTES = 1 << 23  # of a token's file: a thousand vectors of the widest model
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_NAMES = {"clip_l": "token", "clip_g": "token_2"}


@dataclass(frozen=True)
class EarlierToken:
    """A token by block, (vectors, width), and the word that it began as."""

    name: str
    class_word: str
    vectors: Mapping[str, Array]


def earlier_tokens(folder: Path, widths: Mapping[str, int]) -> list[EarlierToken]:
    """Return the tokens in a folder and the folders in it, in the order of their paths.

    A file of ours says its class word. One of another program has a single tensor, or `clip_l` and
    `clip_g`; its class word is the name of the folder it lies in, such as `tokens/dog/rex`.

    Args:
      widths: of the model's vectors, by block.

    Raises:
      InputError: a file is a pickle or no token of this model, one has no class word, or there are
        too few.
    """
    if not folder.is_dir():
        raise InputError(f"--tokens {folder} is no folder; name one of tokens in safetensors.")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        if path.suffix in _PICKLES:
            raise InputError(
                f"{path} is a pickle, which runs code when it is opened; write it as safetensors "
                "once, with the program that made it, or take it out of the folder."
            )
    found = [_token(path, folder, widths) for path in paths if path.suffix == ".safetensors"]
    if len(found) < LEAST:
        raise InputError(
            f"--tokens {folder} holds {len(found)} tokens (.safetensors), a prior takes {LEAST} at "
            "least; add some, or leave it out."
        )
    return found


def _token(path: Path, folder: Path, widths: Mapping[str, int]) -> EarlierToken:
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise InputError(
            f"{path} has {size} bytes, a token has {_MOST_BYTES} at most; take it out of the "
            "folder."
        )
    try:
        tensors, metadata = read_tensors(path)
    except RunFolderError as error:
        raise InputError(f"{path}: not a token file in safetensors ({error}).") from error
    if len(tensors) == 1:
        tensors = {"token": next(iter(tensors.values()))}
    blocks = {_NAMES.get(name, name): np.atleast_2d(value) for name, value in tensors.items()}
    for name in sorted({*widths, *blocks}):
        fits = name in widths and name in blocks and blocks[name].ndim == 2
        if not fits or blocks[name].shape[1] != widths[name] or not len(blocks[name]):
            shape = list(blocks[name].shape) if name in blocks else "missing"
            wanted = f"(vectors, {widths[name]})" if name in widths else "nothing of that name"
            raise InputError(
                f"{path}: {name} is {shape}, this model has {wanted}; take it out of the folder."
            )
        if blocks[name].dtype.kind != "f" or not np.isfinite(blocks[name]).all():
            raise InputError(
                f"{path}: {name} has numbers that are not finite floats; take it out of the folder."
            )
    word = metadata.get("class_word") or (path.parent.name if path.parent != folder else "")
    if not word:
        raise InputError(
            f"{path} does not say what word it began as; put it into a folder of that name, such "
            f"as {folder / 'dog' / path.name}."
        )
    vectors = {name: value.astype(np.float32) for name, value in blocks.items()}
    return EarlierToken(path.stem, word, vectors)
