"""Runs a head: outputs, losses at points, exact gradients, and stage by stage for local rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.losses import cross_entropy
from edge_train.protocols import Apply, Through
from edge_train.rng import Key
from edge_train.tasks.images.stage import HeadStage


@dataclass(frozen=True)
class Block:
    """A stage as local rules ask for it."""

    stage: HeadStage
    divisible: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return self.stage.name

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return (self.stage.inputs,)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return (self.stage.outputs,)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest output that is possible."""
        return self.stage.bounds


def start_of(stages: Sequence[HeadStage], seed: int) -> dict[str, Array]:
    """Return the start values of a head, by name."""
    return {
        f"{stage.name}.{name}": values
        for stage in stages
        for name, values in stage.start(Key(seed, 0)).items()
    }


class HeadEngine:
    """A head on features that were computed before.

    Args:
      stages: of the head.
      parameters: `stage.name` + `.` + the stage's own name -> array.
    """

    device = "cpu"
    dtype = "float32"
    pages = None

    def __init__(self, stages: Sequence[HeadStage], parameters: Parameters) -> None:
        self.stages = stages
        self.blocks = tuple(Block(stage) for stage in stages)
        self.parameters = parameters
        self.batch_limit: int | None = None

    def run(self, index: int, inputs: Array) -> tuple[Array, Any]:
        """Return the outputs of one stage, and its tape."""
        return self.stages[index].forward(self._read(index, self.parameters), inputs)

    def backward_stage(
        self, index: int, tape: Any, error: Array, apply: Apply, through: Through
    ) -> Array | None:
        """Hand `apply` the gradients of one stage; see `BlockwiseRuntime`."""
        stage, needed = self.stages[index], through == "inputs" and index > 0
        gradients, passed = stage.backward(tape, error, needed)
        for name, gradient in gradients.items():
            apply(f"{stage.name}.{name}", gradient)
        return passed

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the cross entropy of every sample at every point, shape (points, samples)."""
        counts = _counts(batch)
        losses = [
            cross_entropy(self.outputs(batch["inputs"], point), batch["labels"], **counts)[0]
            for point in points
        ]
        return np.stack(losses)

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the exact gradient of the mean cross entropy; return losses (samples,)."""
        values, tapes = batch["inputs"], []
        for index in range(len(self.stages)):
            values, tape = self.run(index, values)
            tapes.append(tape)
        losses, error = cross_entropy(values, batch["labels"], **_counts(batch))
        if not np.isfinite(losses).all():
            return losses  # the caller stops the step
        passed: Array | None = error / np.float32(len(losses))
        for index in reversed(range(len(self.stages))):
            assert passed is not None
            passed = self.backward_stage(index, tapes.pop(), passed, apply, "inputs")
        return losses

    def outputs(self, inputs: Array, point: Point) -> Array:
        """Return (samples, classes) logits at a point, at most `batch_limit` samples at a time."""
        size = self.batch_limit or max(len(inputs), 1)
        parts = []
        for start in range(0, len(inputs), size):
            values = inputs[start : start + size]
            for index, stage in enumerate(self.stages):
                values, _ = stage.forward(self._read(index, point), values)
            parts.append(values)
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _read(self, index: int, point: Point) -> "_Part":
        return _Part(point, self.stages[index].name)

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Release nothing: arrays go when nobody holds them."""


class _Part(dict[str, Array]):
    """The parameters of one stage at a point, read when they are asked for."""

    def __init__(self, point: Point, stage: str) -> None:
        super().__init__()
        self._point, self._stage = point, stage

    def __missing__(self, name: str) -> Array:
        return self._point[f"{self._stage}.{name}"]


def _counts(batch: Batch) -> dict[str, Any]:
    """Return what a batch says of its targets beside the labels."""
    found: dict[str, Any] = {}
    if "smoothing" in batch:
        found["smoothing"] = float(batch["smoothing"][0])
    if "weights" in batch:
        found["weights"] = batch["weights"]
    return found
