"""The field as an engine: NumPy, exact gradients, some queries at a time.

The Chamfer term couples all queries of a batch. In parts, each part is moved first and forgotten;
the slopes of the term are computed for all of them, and each part then passes once more.
"""

from collections.abc import Sequence

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Apply
from edge_train.tasks.surface.field import Field, Shape, Tape
from edge_train.tasks.surface.losses import (
    AGREE,
    AGREE_FALL,
    AIM,
    SURFACE,
    Unit,
    aligned,
    chamfer_l1,
    unit_of,
)

LOSSES = ("level-set", "distance")


class FieldEngine:
    """A `GradientRuntime` of a field.

    Args:
      shape: of the network.
      parameters: its own.
      loss: one of `LOSSES`.
      micro_batch: queries whose activations exist at once; None: all of a step.
    """

    device = "cpu"
    dtype = "float32"
    pages = None

    def __init__(
        self, shape: Shape, parameters: Parameters, loss: str, micro_batch: int | None = None
    ) -> None:
        self.shape, self.parameters, self._loss = shape, parameters, loss
        self._micro_batch = micro_batch
        self.batch_limit: int | None = None

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, queries)."""
        return np.stack([self._passed(Field(self.shape, one), batch, None) for one in points])

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the exact gradient of the mean loss; return losses (queries,)."""
        field, total = Field(self.shape, self.parameters), dict[str, Array]()
        losses = self._passed(field, batch, total)
        if np.isfinite(losses).all():
            for name, gradient in field.gradients(total).items():
                apply(name, gradient)
        return losses

    def _passed(self, field: Field, batch: Batch, total: dict[str, Array] | None) -> Array:
        """Return losses (queries,), and add gradients to `total` where there is one."""
        if self._loss == "distance":
            return self._told(field, batch, total)
        queries, near = batch["queries"], batch["near"]
        parts, moved = self._parts(len(queries)), np.empty_like(queries)
        tape: Tape | None = None
        for some in parts:
            tape = field.at(queries[some])
            moved[some] = _moved(queries[some], tape)
        losses, slopes = chamfer_l1(moved, near)
        for some in parts:
            if len(parts) > 1:
                tape = field.at(queries[some])
            assert tape is not None
            rest = (batch["surface"][some], queries[some] - near[some], slopes[some])
            losses[some] += self._rest(field, tape, moved[some], *rest, len(queries), total)
        return losses

    def _rest(
        self,
        field: Field,
        tape: Tape,
        moved: Array,
        surface: Array,
        away: Array,
        slopes: Array,
        count: int,
        total: dict[str, Array] | None,
    ) -> Array:
        """Return the other terms of some queries; add gradients of all terms.

        Args:
          tape: at the queries.
          moved: where they were moved to, with `slopes` of the Chamfer term for that.
          surface: points of the cloud, as many.
          away: from the nearest point to each query.
          count: queries of the whole batch.
        """
        here, there_tape = unit_of(tape.slope), field.at(moved)
        there, on = unit_of(there_tape.slope), field.at(surface)
        differ, agreeing = aligned(here.vectors, there.vectors)
        weight = np.float32(AGREE) * np.exp(-np.float32(AGREE_FALL) * tape.distance)
        astray, aiming = aligned(here.vectors, unit_of(away).vectors)
        losses: Array = (
            weight * differ + np.float32(SURFACE) * on.distance + np.float32(AIM) * astray
        )
        if total is None:
            return losses
        share = np.float32(1 / count)
        of_here = -tape.distance[:, None] * slopes
        of_here -= share * weight[:, None] * agreeing * there.vectors
        of_here -= share * np.float32(AIM) * aiming * unit_of(away).vectors
        of_there = -share * weight[:, None] * agreeing * here.vectors
        of_distance = -(slopes * here.vectors).sum(axis=1)
        of_distance -= share * np.float32(AGREE_FALL) * weight * differ
        nothing = np.zeros_like(of_distance)
        field.add_gradients(tape, of_distance, here.back(of_here), total)
        field.add_gradients(there_tape, nothing, there.back(of_there), total)
        of_surface = np.full(len(surface), share * np.float32(SURFACE), np.float32)
        field.add_gradients(on, of_surface, None, total)
        return losses

    def _told(self, field: Field, batch: Batch, total: dict[str, Array] | None) -> Array:
        """Return how wrong the distances to the nearest points are, and at points of the cloud."""
        queries, count = batch["queries"], len(batch["queries"])
        losses = np.empty(count, np.float32)
        far = np.sqrt(np.square(queries - batch["near"]).sum(axis=1))
        for some in self._parts(count):
            tape, on = field.at(queries[some]), field.at(batch["surface"][some])
            wrong = tape.distance - far[some]
            losses[some] = np.abs(wrong) + np.float32(SURFACE) * on.distance
            if total is not None:
                share = np.float32(1 / count)
                field.add_gradients(tape, share * np.sign(wrong), None, total)
                of_surface = np.full(len(wrong), share * np.float32(SURFACE), np.float32)
                field.add_gradients(on, of_surface, None, total)
        return losses

    def _parts(self, count: int) -> list[slice]:
        size = min(limit for limit in (self._micro_batch, self.batch_limit, count) if limit)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Release nothing: arrays go when nobody holds them."""


def _moved(queries: Array, tape: Tape) -> Array:
    """Return queries pulled along their slopes by their distances, (queries, 3)."""
    here: Unit = unit_of(tape.slope)
    moved: Array = queries - tape.distance[:, None] * here.vectors
    return moved
