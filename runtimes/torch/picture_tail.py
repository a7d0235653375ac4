"""The last blocks of a network in timm's layout as a stage that is trained with the head.

What is trained of a weight is its difference from the pretrained one, divided by 0.01: a rate and a
decay that suit a new head then move pretrained weights a hundredth as fast, and decay pulls them
back to where they were (as L2-SP, arXiv:1802.01483) and not to zero. Statistics of batch
normalization stay those of the file. Features leave divided by their root mean square.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.timm_folder import TimmFolder
from edge_train.rng import Key
from edge_train.runtimes.torch.timm_pictures import TimmNetwork

ROWS = 8  # whose activations are held at once
_STEP = 0.01  # of a pretrained weight, for one of what is trained
_STATISTICS = ("running_mean", "running_var")
_FLOOR = 1e-6  # of the mean square of features


class PictureTail:
    """A `HeadStage` of the last blocks: rows of what the other blocks give, to features.

    Args:
      blocks: how many are trained.
      mean, scale: what rows have been made comparable by; undone here.

    Raises:
      InputError: the network has not so many blocks, or one is too few.
      ModelError: its files cannot be used.
    """

    name = "tail"
    bounds = (-math.inf, math.inf)

    def __init__(
        self,
        folder: TimmFolder,
        blocks: int,
        mean: Array | None = None,
        scale: float = 1.0,
    ) -> None:
        network = TimmNetwork(folder)
        self._first = place_of(network, folder, blocks)
        self._steps, self._shape = network.steps, network.inner[self._first]
        names = set().union(*network.reads[self._first :])
        self._fixed = {name: network.tensor(name) for name in sorted(names)}
        self._mean, self._scale = mean, scale
        self.inputs, self.outputs = math.prod(self._shape), folder.width
        self._run = network.run

    @cached_property
    def _trained(self) -> Mapping[str, Tensor]:
        return {n: v for n, v in self._fixed.items() if not n.endswith(_STATISTICS)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return those of the differences; a kernel is a row of a matrix."""
        return {
            name: (value.shape[0], value[0].numel()) if value.ndim > 1 else tuple(value.shape)
            for name, value in self._trained.items()
        }

    def start(self, key: Key) -> dict[str, Array]:
        """Return zeros: the pretrained weights."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.shapes().items()}

    def forward(self, read: Mapping[str, Array], inputs: Array) -> tuple[Array, Any]:
        """Return features (rows, outputs), a few rows at a time; `backward` computes them again."""
        changes = {name: torch.from_numpy(np.array(read[name])) for name in self._trained}
        with torch.no_grad():
            parts = [self._features(changes, some) for some in self._pieces(inputs)]
        return np.concatenate([part.numpy() for part in parts]), (changes, inputs)

    def backward(
        self, tape: Any, error: Array, needed: bool
    ) -> tuple[dict[str, Array], Array | None]:
        """Return exact gradients by name; nothing in front of it is trained."""
        changes, inputs = tape
        leaves = [one.requires_grad_(True) for one in changes.values()]
        sums = [torch.zeros_like(one) for one in leaves]
        pieces = self._pieces(inputs)
        for some, wrong in zip(pieces, self._split(error), strict=True):
            features = self._features(changes, some)
            found = torch.autograd.grad(features, leaves, torch.from_numpy(wrong))
            for total, one in zip(sums, found, strict=True):
                total += one
        return {n: g.numpy() for n, g in zip(changes, sums, strict=True)}, None

    def _split(self, rows: Array) -> list[Array]:
        return [np.ascontiguousarray(rows[n : n + ROWS]) for n in range(0, len(rows), ROWS)]

    def _pieces(self, inputs: Array) -> list[Tensor]:
        if self._mean is not None:
            inputs = inputs * np.float32(self._scale) + self._mean
        return [torch.from_numpy(one).reshape(-1, *self._shape) for one in self._split(inputs)]

    def _features(self, changes: Mapping[str, Tensor], values: Tensor) -> Tensor:
        tensors = dict(self._fixed)
        for name, change in changes.items():
            pretrained = self._fixed[name]
            tensors[name] = pretrained + _STEP * change.reshape(pretrained.shape)
        found = self._run(values, tensors, self._first)
        return found * (found.square().mean(1, keepdim=True) + _FLOOR).rsqrt()


def place_of(network: TimmNetwork, folder: TimmFolder, blocks: int) -> int:
    """Return the number of the step where the last blocks begin.

    Raises:
      InputError: there are not so many.
    """
    places = [number for number, step in enumerate(network.steps) if step.is_block]
    if not 0 < blocks <= len(places):
        raise InputError(
            f"trained_blocks is {blocks}, but {folder.architecture} has {len(places)} blocks; "
            f"train from 1 to {len(places)} of them."
        )
    return places[-blocks]


def rows_of(folder: TimmFolder, blocks: int) -> int:
    """Return the numbers of a picture in front of the last blocks."""
    network = TimmNetwork(folder)
    return math.prod(network.inner[place_of(network, folder, blocks)])


class TorchTrunk:
    """What is in front of the last blocks: pictures (n, side, side, 3) to rows, in float32."""

    def __init__(self, folder: TimmFolder, threads: int, blocks: int) -> None:
        torch.set_num_threads(threads)
        self._network = TimmNetwork(folder).requires_grad_(False)
        self._end = place_of(self._network, folder, blocks)
        self._mean = torch.tensor(folder.mean) * 255
        self._deviation = torch.tensor(folder.deviation) * 255

    def __call__(self, pixels: NDArray[Any]) -> Array:
        """Return rows (n, numbers)."""
        with torch.no_grad():
            values = (torch.from_numpy(pixels).float() - self._mean) / self._deviation
            found = self._network.part(values.permute(0, 3, 1, 2), self._end)
        rows: Array = found.flatten(1).numpy()
        return rows
