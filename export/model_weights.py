"""The float weights behind a graph's initializers, read from a model folder one at a time."""

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.tensor_file import TensorFile

# Attention layers of older VAE files -> the names of today.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# Parts of a gated layer that one tensor holds, one after the other.
HALVES = ("value", "gate")


class ModelWeights:
    """Finds the tensor of an initializer such as `unet.conv_in.weight`."""

    def __init__(self, model: ModelFolder) -> None:
        self._path = model.path
        self._found: dict[str, tuple[TensorFile, str]] = {
            _plain(f"{component}.{name}"): (file, name)
            for component in model.components
            for file in model.tensor_files(component)
            for name in file.entries
        }

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return one tensor as float32.

        Raises:
          ModelError: it is missing, or has another shape than the configuration says.
        """
        for index, half in enumerate(HALVES):
            whole = name.replace(f".proj.{half}.", ".proj.")
            if whole != name:
                stored = self.read(whole, (2 * shape[0], *shape[1:]))
                return stored[index * shape[0] : (index + 1) * shape[0]]
        if (plain := _plain(name)) not in self._found:
            raise ModelError(
                f"{self._path}: no tensor {name!r}, which the configuration asks for; copy or "
                "download the model again."
            )
        file, stored_name = self._found[plain]
        found = file.entries[stored_name].shape
        if found != shape:
            raise ModelError(
                f"{file.path}: tensor {stored_name!r} is {list(found)}, the configuration asks for "
                f"{list(shape)}; copy or download the model again."
            )
        return file.read(stored_name)


def _plain(name: str) -> str:
    """Return the one spelling of a tensor's name that all versions of the libraries share.

    >>> _plain("text_encoder.text_model.final_layer_norm.weight")
    'text_encoder.final_layer_norm.weight'
    """
    parts = [_RENAMED.get(part, part) for part in name.split(".") if part != "text_model"]
    return ".".join(parts)
