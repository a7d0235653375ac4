"""A frozen backbone of pictures on ONNX Runtime: pixels in, features out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import ModelError
from edge_train.formats.picture_graph import PictureGraph
from edge_train.memory.measure import map_large_blocks
from edge_train.runtimes.onnx.engine import call, load_graph, session_settings


class OnnxPictures:
    """A graph from pictures to features.

    Args:
      normal: mean and deviation of pixels between 0 and 1; None: the graph takes 0 to 255.
      threads: of the engine.

    Raises:
      ModelError: no engine, or a graph that it cannot read.
    """

    def __init__(
        self,
        graph: PictureGraph,
        normal: tuple[Sequence[float], Sequence[float]] | None,
        threads: int,
    ) -> None:
        self._graph, self._normal = graph, normal
        # Features are computed once, then all is let go: EfficientNet-Lite0 holds 50 MB less in a
        # call for a fifth more time.
        map_large_blocks()
        settings = session_settings(threads)
        settings.enable_cpu_mem_arena = False
        self._session = load_graph(graph.path, settings, ["CPUExecutionProvider"])

    def __call__(self, pixels: NDArray[Any]) -> Array:
        """Return features (n, width) of pictures (n, side, side, 3).

        Raises:
          ModelError: the engine stopped, or gave features of another size.
        """
        values = pixels.astype(np.float32)
        if self._normal is not None:
            mean, deviation = (np.array(one, np.float32) for one in self._normal)
            values = (values / np.float32(255) - mean) / deviation
        if self._graph.channels_first:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        (found,) = call(self._session, [self._graph.output], {self._graph.entry: values})
        features = np.asarray(found, np.float32)
        if features.ndim == 4:  # a map of channels
            features = features.mean(axis=(2, 3))
        elif features.ndim == 3:  # states of patches, the first of which stands for all
            features = features[:, 0]
        if features.shape != (len(pixels), self._graph.width):
            raise ModelError(
                f"{self._graph.path}: it gave features of shape {features.shape}, its header says "
                f"{(len(pixels), self._graph.width)}; export it again."
            )
        return features
