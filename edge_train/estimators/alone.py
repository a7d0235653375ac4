"""The `Company` of a run that trains by itself: it takes every step, and agrees with nobody."""

from collections.abc import Callable, Mapping
from typing import Any

from edge_train.arrays.types import Batch
from edge_train.protocols import Apply, Estimate, Estimator, Objective, Running, StepRecord
from edge_train.rng import Key


class Alone:
    """See `protocols.Company`."""

    def start(self, record: Mapping[str, Any], parameters: Any) -> dict[str, Any]:
        """Return the first record as it is."""
        return dict(record)

    def resume(self, record: Mapping[str, Any], run: Running) -> None:
        """Do nothing."""

    def redo(self, record: StepRecord, take: Callable[[], None]) -> None:
        """Rebuild the step."""
        take()

    def step(
        self,
        estimator: Estimator[Any],
        runtime: Any,
        task: Objective,
        batch: Batch,
        key: Key,
        apply: Apply,
    ) -> Estimate:
        """Let the estimator take the step."""
        return estimator.estimate(runtime, task, batch, key, apply)

    def evaluation(self, step: int, measure: Callable[[], float]) -> float:
        """Return the loss that is measured here."""
        return measure()
