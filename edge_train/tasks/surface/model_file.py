"""What a run learned, as one file: the field, and where its cloud lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.clouds.cloud import Frame
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.tasks.surface.field import Field, Shape

FIELD = "field.safetensors"
_CENTER, _RADIUS = "frame.center", "frame.radius"
_VERSION = "1"


@dataclass(frozen=True)
class Model:
    """A trained field, around zero, and the frame of its cloud."""

    shape: Shape
    parameters: Mapping[str, Array]
    frame: Frame

    @cached_property
    def field(self) -> Field:
        """The network at its parameters."""
        return Field(self.shape, self.parameters)

    def slopes(self, points: Array) -> tuple[Array, Array]:
        """Return distances (n,) and slopes (n, 3) of points (n, 3) in the frame of training."""
        tape = self.field.at(points)
        return tape.distance, tape.slope

    def save(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
          RunFolderError: it cannot be written.
        """
        tensors = {name: np.array(value) for name, value in self.parameters.items()}
        tensors |= {
            _CENTER: np.array(self.frame.center, np.float64),
            _RADIUS: np.array([self.frame.radius], np.float64),
        }
        about = {
            "version": _VERSION,
            "width": str(self.shape.width),
            "layers": str(self.shape.layers),
        }
        save_tensors(path, tensors, about)


def load_model(path: Path | str) -> Model:
    """Return what a run learned.

    Raises:
      RunFolderError: it is missing, damaged, or of a later version.
    """
    tensors, about = load_tensors(Path(path))
    try:
        if about["version"] != _VERSION:
            raise ValueError(f"it is of version {about['version']}, this reads {_VERSION}")
        shape = Shape(int(about["width"]), int(about["layers"]))
        if shape.width < 4 or shape.layers < 2:
            raise ValueError("a size is too small")
        center, radius = tensors.pop(_CENTER), tensors.pop(_RADIUS)
        if {name: value.shape for name, value in tensors.items()} != shape.shapes:
            raise ValueError("its arrays do not fit its sizes")
        if center.shape != (3,) or radius.shape != (1,):
            raise ValueError("its frame is no point and no radius")
        return Model(shape, tensors, Frame(center, float(radius[0])))
    except (KeyError, ValueError) as error:
        raise RunFolderError(f"{path}: is no field of a surface ({error}).") from error
