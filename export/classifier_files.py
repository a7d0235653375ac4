"""The weights of a trained classifier as a file that transformers loads."""

from collections.abc import Mapping
from pathlib import Path

from edge_train.arrays.types import Array
from edge_train.formats.atomic import write_parts
from edge_train.formats.tensor_store import safetensors_parts

WEIGHTS_FILE = "model.safetensors"


def write_classifier(folder: Path, weights: Mapping[str, Array]) -> None:
    """Write weights into `folder`, which is there.

    Raises:
      RunFolderError: it cannot be written.
    """
    write_parts(folder / WEIGHTS_FILE, safetensors_parts(weights, {"format": "pt"}))
