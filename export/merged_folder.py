"""A model folder with an adapter merged in, as transformers loads it."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from edge_train.arrays.factored import tiles
from edge_train.errors import InputError
from edge_train.export.adapter_changes import Change
from edge_train.export.language_files import encoded, write_changed
from edge_train.export.result_texts import write_made, write_texts
from edge_train.formats.atomic import write_parts
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.tensor_file import StoredTensor, WeightFile
from edge_train.formats.tensor_store import safetensors_header

_OF_ONE_FILE = "F16"  # weights in few bits become these, as they do in llama.cpp's own merge
_MOST_HALF = float(np.finfo(np.float16).max)


def write_merged(
    folder: Path, base: LanguageFolder, changes: Mapping[tuple[Path, str], Change]
) -> None:
    """Write weights, configuration and tokenizer.

    Weights keep the files, names and types of a base that is a folder; those of a base that is one
    GGUF file become F16.

    Args:
      folder: empty.
      changes: file and tensor -> what becomes of it.

    Raises:
      InputError: a weight is too large for F16.
      RunFolderError: the folder cannot be written.

    Memory: two tiles of a matrix in float32.
    """
    if base.made is None:
        write_texts(base.path, folder, {}, tokenizer=base.tokenizer())
        new = {
            at: partial(change.merged, StoredTensor(_file(base, at[0]), at[1]))
            for at, change in changes.items()
        }
        write_changed(folder, base.rewritten, new)
        return
    config = {**base.config, "dtype": "float16"}
    write_made(folder, config, base.made.tokenizer, base.made.settings)
    (file,) = base.files
    write_parts(folder / "model.safetensors", _halves(file, changes))


def _file(base: LanguageFolder, path: Path) -> WeightFile:
    return next(file for file in base.files if file.path == path)


def _halves(file: WeightFile, changes: Mapping[tuple[Path, str], Change]) -> Iterator[bytes]:
    """Yield one file of all tensors in F16."""
    kinds = {name: (_OF_ONE_FILE, entry.shape) for name, entry in file.entries.items()}
    yield safetensors_header(kinds, {"format": "pt"})
    for name in sorted(kinds):
        stored, shape = StoredTensor(file, name), kinds[name][1]
        if change := changes.get((file.path, name)):
            parts = change.merged(stored)
        elif len(shape) == 2:
            parts = (stored[rows] for rows in tiles((shape[0], shape[1])))
        else:
            parts = iter([np.asarray(stored)])
        for part in parts:
            if np.abs(part).max(initial=0) > _MOST_HALF:
                raise InputError(
                    f"tensor {name!r} has a weight of {np.abs(part).max():.3g}, and F16 holds at "
                    "most 65504; load the adapter beside its base instead."
                )
            yield encoded(part, _OF_ONE_FILE)
