"""What a run learned, as one file: the autoencoder, and how far known clouds are from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.tasks.points.distances import chamfer
from edge_train.tasks.points.network import DECODERS, Autoencoder, Shape

AUTOENCODER = "autoencoder.safetensors"
_VERSION = "1"
_DEVIATIONS = 3.0  # above the mean of held-out clouds a scan is called unusual
_FRAME_BYTES = 16  # of a code: middle and radius of the cloud, in float32


@dataclass(frozen=True)
class Model:
    """A trained autoencoder.

    Attributes:
      parameters: by the names of `shape.shapes`.
      mean, deviation: of the scores of clouds that were held out; where these are few, the
        deviation is that of clouds that were trained on, too.
    """

    shape: Shape
    parameters: Mapping[str, Array]
    mean: float
    deviation: float

    @cached_property
    def network(self) -> Autoencoder:
        """The network at its parameters."""
        return Autoencoder(self.shape, self.parameters)

    @property
    def threshold(self) -> float:
        """The score from which on a cloud is called unusual."""
        return self.mean + _DEVIATIONS * self.deviation

    @property
    def code_bytes(self) -> int:
        """Bytes that a cloud is compressed to: its code, middle and radius in float32."""
        return 4 * self.shape.code + _FRAME_BYTES

    def score(self, clouds: Array) -> tuple[Array, Array]:
        """Return how far clouds are from their reconstructions, and those.

        Args:
          clouds: (clouds, points, 3), around zero with a radius of 1.

        Returns:
          scores: the Chamfer distance in squared radii, (clouds,).
          back: (clouds, points, 3).
        """
        back = self.network.forward(clouds)
        scores = [chamfer(x, y)[0] for x, y in zip(clouds, back, strict=True)]
        return np.array(scores, np.float32), back

    def save(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
          RunFolderError: it cannot be written.
        """
        shape = self.shape
        about = {
            "version": _VERSION,
            "points": str(shape.points),
            "code": str(shape.code),
            "width": str(shape.width),
            "decoder": shape.decoder,
            "mean": repr(self.mean),
            "deviation": repr(self.deviation),
        }
        save_tensors(path, {name: np.array(v) for name, v in self.parameters.items()}, about)


def load_model(path: Path | str) -> Model:
    """Return what a run learned.

    Raises:
      RunFolderError: it is missing, damaged, or of a later version.
    """
    tensors, about = load_tensors(Path(path))
    try:
        if about["version"] != _VERSION:
            raise ValueError(f"it is of version {about['version']}, this reads {_VERSION}")
        if about["decoder"] not in DECODERS:
            raise ValueError(f"its decoder is {about['decoder']!r}")
        sizes = {name: int(about[name]) for name in ("points", "code", "width")}
        if min(sizes.values()) < 1:
            raise ValueError("a size is not above zero")
        shape = Shape(**sizes, decoder=about["decoder"])
        if {name: value.shape for name, value in tensors.items()} != shape.shapes:
            raise ValueError("its arrays do not fit its sizes")
        return Model(shape, tensors, float(about["mean"]), float(about["deviation"]))
    except (KeyError, ValueError) as error:
        raise RunFolderError(f"{path}: is no autoencoder of clouds ({error}).") from error
