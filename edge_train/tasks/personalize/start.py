"""The vectors that a token starts from: those of its class word, or of a token learned before."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.tensor_store import read_tensors

_NAMES = {"clip_l": "token", "clip_g": "token_2"}


def learned_vectors(
    path: Path, wanted: Mapping[str, Array], model: str, hashes: Sequence[str]
) -> tuple[dict[str, Array], int]:
    """Return the vectors of a token file, by block, and how many of a block were learned.

    A file of our own says which model it was learned with. One of another program has a single
    tensor, or `clip_l` and `clip_g`, and is taken where its shapes fit. A run of more vectors than
    were learned keeps those, and the others follow them as they are in `wanted`.

    Args:
      wanted: blocks of the shapes that the run trains, with the values of the class word.
      model: that is trained with, as the user names it.
      hashes: by which it is known: of its weights; of an artifact also its own, which files of
        earlier versions have.

    Raises:
      InputError: it is no token file, or of another model, or of another number of vectors.
    """
    try:
        found, metadata = read_tensors(path)
    except RunFolderError as error:
        raise InputError(f"--from {path}: not a token file in safetensors ({error}).") from error
    if metadata.get("base_model_sha256", hashes[0]) not in hashes:
        raise InputError(
            f"--from {path}: its token was learned with model {metadata.get('base_model')} (sha256 "
            f"{metadata['base_model_sha256'][:12]}...), not with {model} "
            f"({hashes[0][:12]}...); name that --model."
        )
    if not found:
        raise InputError(f"--from {path}: holds no tensors; name the file of a word.")
    if len(found) == 1:
        found = {"token": next(iter(found.values()))}
    blocks = {_NAMES.get(name, name): np.atleast_2d(value) for name, value in found.items()}
    learned = min(len(block) for block in blocks.values())
    if strange := sorted({*blocks} - {*_NAMES.values()}):
        raise InputError(
            f"--from {path}: has tensor {strange[0][:120]!r} among {len(blocks)}, and a word has "
            "one alone, or clip_l and clip_g; name the file of a word."
        )
    if blocks.keys() != wanted.keys():
        raise InputError(
            f"--from {path}: it is a word of {_encoders(len(blocks))}, and {model} has "
            f"{_encoders(len(wanted))}; name the --model that it was learned with."
        )
    for name in wanted:
        own, whole = blocks[name], wanted[name]
        if own.ndim == 2 and own.shape[1:] == whole.shape[1:] and 0 < len(own) < len(whole):
            blocks[name] = np.concatenate([own, whole[len(own) :]])
    for name in sorted(wanted):
        have, need = blocks[name].shape, wanted[name].shape
        if have != need:
            raise InputError(
                f"--from {path}: {name} is {_shown(have)}, this run trains {_shown(need)}; give as "
                "many --vectors or more, and the model that it was learned with."
            )
        if not np.isfinite(blocks[name]).all():
            raise InputError(f"--from {path}: {name} has numbers that are not finite.")
    return {name: np.asarray(value, np.float32) for name, value in blocks.items()}, learned


def _encoders(count: int) -> str:
    return f"{count} text encoder{'s' * (count != 1)}"


def _shown(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} vector{'s' * (shape[0] != 1)} of {shape[-1]} numbers"
