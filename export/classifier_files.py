"""A trained classifier as a folder that transformers loads."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.atomic import write_parts
from edge_train.formats.tensor_store import safetensors_parts


def write_classifier(folder: Path, weights: Mapping[str, Array], texts: Sequence[Path]) -> None:
    """Write weights, and copies of configuration and tokenizer files, into `folder`.

    Raises:
      RunFolderError: it cannot be written.

    Memory:
      Two copies of the weights.
    """
    try:
        folder.mkdir(exist_ok=True)
        for path in texts:
            shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written ({error.strerror}).") from error
    write_parts(folder / "model.safetensors", safetensors_parts(weights, {"format": "pt"}))
