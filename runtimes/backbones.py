"""Frozen networks in front of the one that is trained: NumPy or ONNX Runtime, forward only."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import ModelError
from edge_train.formats.network import Shape
from edge_train.formats.network_file import SavedNetwork
from edge_train.runtimes.numpy.network import NumpyNetwork
from edge_train.runtimes.onnx.engine import call, load_graph, session_settings


class Backbone(Protocol):
    """Turns samples as they are stored into features."""

    feature_shape: Shape

    def __call__(self, stored: NDArray[Any]) -> Array:
        """Return features (samples, *feature_shape), float32."""
        ...


class NumpyBackbone:
    """The first blocks of a network that edge-train saved.

    Args:
      blocks: how many of them; all give logits.
    """

    def __init__(self, saved: SavedNetwork, blocks: int) -> None:
        self._saved = saved
        self._network = NumpyNetwork(saved.network, saved.parameters)
        self._blocks = range(blocks)
        self.feature_shape = saved.network.blocks[blocks - 1].output_shape

    def __call__(self, stored: NDArray[Any]) -> Array:
        """Return features."""
        values = stored.astype(np.float32)
        values -= self._saved.mean
        values /= self._saved.deviation
        statistics = dict(self._saved.statistics)
        return self._network.outputs(values, self._saved.parameters, statistics, self._blocks)


class OnnxBackbone:
    """An ONNX graph of one input and one output, run by ONNX Runtime.

    It is given the numbers as they are stored (pixels from 0 to 255), channels last, or first where
    its input says so: what standardizes them belongs into the graph.

    Raises:
      ModelError: no engine, a damaged file, or an input that such samples do not fit.
    """

    def __init__(self, path: Path, sample_shape: Shape) -> None:
        session = load_graph(path, session_settings(1), ["CPUExecutionProvider"])
        self._session = session
        entry = session.get_inputs()[0]
        self._input, wanted = entry.name, tuple(entry.shape[1:])
        first = (sample_shape[-1], *sample_shape[:-1])
        self._channels_first = wanted == first and wanted != sample_shape
        if wanted not in (sample_shape, first):
            raise ModelError(
                f"backbone {path}: its input is of shape {wanted}, samples are of {sample_shape}."
            )
        self.feature_shape = self(np.zeros((1, *sample_shape), np.float32)).shape[1:]

    def __call__(self, stored: NDArray[Any]) -> Array:
        """Return features."""
        values = stored.astype(np.float32)
        if self._channels_first:
            values = np.ascontiguousarray(np.moveaxis(values, -1, 1))
        (features,) = call(self._session, None, {self._input: values})
        return np.asarray(features, np.float32)
