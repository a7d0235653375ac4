"""A judge that says what a 32x32 picture shows: class, object color, background color. NumPy only.

It measures what a personalized pipeline paints. `demos/tiny_sd/pretrain.py` trains it on real
pictures; it never trains the pipeline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_train.arrays.types import Array

FORMAT = "edge-train judge 1"
STORED_TYPES = {"F16": np.float16, "F32": np.float32}
BATCH = 32  # pictures at a time; bounds the memory, not the result


@dataclass(frozen=True)
class Verdict:
    """What the judge saw: for each picture an index into the judge's names; all (n,) int64."""

    class_index: npt.NDArray[np.int64]
    color_index: npt.NDArray[np.int64]
    background_index: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Judge:
    """A small convnet with three heads.

    `convolutions` holds (weight, bias, stride) of each 3x3 layer, weights as (9 * inputs, outputs);
    `heads` holds the weight (features, scores) and the bias of the one linear layer behind them.
    """

    class_names: tuple[str, ...]
    color_names: tuple[str, ...]
    background_names: tuple[str, ...]
    convolutions: tuple[tuple[Array, Array, int], ...]
    heads: tuple[Array, Array]

    @classmethod
    def load(cls, path: str | Path) -> Judge:
        """Read a judge file.

        Raises:
          ValueError: the file has another format.
        """
        tensors, metadata = _read_safetensors(Path(path))
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"{path}: format is {metadata.get('format')!r}, expected {FORMAT!r}; "
                "write it again with demos/tiny_sd/pretrain.py."
            )
        convolutions = []
        for index, stride in enumerate(json.loads(metadata["strides"])):
            weight = tensors[f"convolution.{index}.weight"]  # (outputs, inputs, 3, 3)
            columns = weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))
            convolutions.append((columns, tensors[f"convolution.{index}.bias"], stride))
        return cls(
            class_names=tuple(json.loads(metadata["classes"])),
            color_names=tuple(json.loads(metadata["colors"])),
            background_names=tuple(json.loads(metadata["backgrounds"])),
            convolutions=tuple(convolutions),
            heads=(tensors["heads.weight"].T, tensors["heads.bias"]),
        )

    def predict(self, images: npt.ArrayLike) -> Verdict:
        """Judge pictures.

        Args:
          images: (n, 32, 32, 3) uint8.

        Raises:
          ValueError: another shape or type.

        Memory:
          About 60 MB, however many pictures.
        """
        scores = np.split(
            self.scores(images),
            np.cumsum([len(self.class_names), len(self.color_names)]),
            axis=1,
        )
        return Verdict(*(part.argmax(axis=1) for part in scores))

    def class_share(self, verdict: Verdict, name: str) -> float:
        """Return the share of pictures in `verdict` that show class `name`."""
        return float((verdict.class_index == self.class_names.index(name)).mean())

    def scores(self, images: npt.ArrayLike) -> Array:
        """Return (n, classes + colors + backgrounds) raw scores; see `predict`."""
        pictures = np.asarray(images)
        if pictures.shape[1:] != (32, 32, 3) or pictures.dtype != np.uint8:
            raise ValueError(
                f"images are {pictures.dtype} {pictures.shape}, expected uint8 (n, 32, 32, 3)."
            )
        parts = [
            self._scores(pictures[start : start + BATCH])
            for start in range(0, len(pictures), BATCH)
        ]
        width = len(self.heads[1])
        return np.concatenate(parts) if parts else np.empty((0, width), np.float32)

    def _scores(self, pictures: npt.NDArray[np.uint8]) -> Array:
        hidden = pictures.astype(np.float32) / np.float32(127.5) - 1
        for weight, bias, stride in self.convolutions:
            hidden = np.maximum(_convolve(hidden, weight, stride) + bias, 0)
        # The linear layer expects (channel, row, column) order.
        flat = hidden.transpose(0, 3, 1, 2).reshape(len(hidden), -1)
        weight, bias = self.heads
        return np.add(flat @ weight, bias, dtype=np.float32)


def _convolve(hidden: Array, weight: Array, stride: int) -> Array:
    """Return the 3x3 convolution, padding 1, of (n, h, w, inputs) with (9 * inputs, outputs)."""
    padded = np.pad(hidden, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)  # (n, h, w, 3, 3, inputs)
    count, height, width = windows.shape[:3]
    product: Array = windows.reshape(count * height * width, -1) @ weight
    return product.reshape(count, height, width, -1)


def _read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file as float32: length of the header, JSON header, raw values."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    metadata: dict[str, str] = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        values = np.frombuffer(data[start + first : start + last], STORED_TYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"]).astype(np.float32)
    return tensors, metadata
