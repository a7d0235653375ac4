"""An ONNX Runtime on an x86 processor without VNNI, for the graphs of `product_probe`: NumPy."""

from types import SimpleNamespace

import numpy as np

from edge_train.formats.onnx_file import fields, text
from edge_train.runtimes.onnx.product_probe import PRECISE

_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32}


class CuttingEngine:
    """Adds pairs of uint8 x int8 products in `bits` bits, as `vpmaddubsw` does in 16.

    Attributes:
      asked: how often a session was asked for unsigned weights, which it multiplies exactly.
    """

    def __init__(self, version: str, bits: int = 16) -> None:
        self.__version__, self.asked = version, 0
        self._limit = 2 ** (bits - 1)

    class SessionOptions:
        def __init__(self) -> None:
            self.entries = {}

        def add_session_config_entry(self, name, value) -> None:
            self.entries[name] = value

    def InferenceSession(self, graph, settings, providers):
        precise = settings.entries.get(PRECISE) == "1"
        self.asked += precise
        weights = _weights(graph)
        return SimpleNamespace(
            run=lambda names, feeds: [self._output(name, weights, feeds, precise) for name in names]
        )

    def _output(self, name, weights, feeds, precise):
        if name == "sums":
            signed = weights["linear"].astype(np.int64)
            levels = feeds["rows"].astype(np.int64) + 128
            return (self._sum(levels, signed, precise) - 128 * signed.sum(0)).astype(np.float32)
        if name == "colors":
            filters = weights["filters"].astype(np.int64)
            levels = feeds["picture"][0, :, :3, :3].astype(np.int64).reshape(1, -1)
            sums = self._sum(levels, filters.reshape(len(filters), -1).T, precise)[0]
            colors = np.clip(sums + weights["bias"], 0, 255)[None, :, None, None]
            return np.broadcast_to(colors, (1, len(filters), 3, 3)).astype(np.float32)
        raise AssertionError(f"nothing computes {name}")

    def _sum(self, levels, signed, precise):
        products = levels[:, :, None] * signed[None]
        pairs = products[:, 0::2] + products[:, 1::2]
        if not precise:
            pairs = np.clip(pairs, -self._limit, self._limit - 1)
        return pairs.sum(1)


def _weights(graph):
    (content,) = (value for number, value in fields(memoryview(graph)) if number == 7)
    found = {}
    for number, tensor in fields(content):
        if number == 5:
            parts = list(fields(tensor))
            shape = [value for part, value in parts if part == 1]
            (kind,), (name,), (raw,) = ([v for part, v in parts if part == n] for n in (2, 8, 9))
            found[text(name)] = np.frombuffer(raw, _TYPES[kind]).reshape(shape)
    return found
