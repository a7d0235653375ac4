"""What a journal says of a moment of its run: the past that a checkpoint of it must have.

Every step folds its numbers into one hash, the history, which begins with the hash of the recipe.
A checkpoint keeps the history of its step, so that one of another run, another recipe or another
place in the journal is told from the one that belongs there.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from edge_train.protocols import StepRecord
from edge_train.records.best import replaces_best


@dataclass(frozen=True)
class Moment:
    """A run after some steps: their history, and the best evaluation with the steps before it."""

    history: str
    best_step: int
    best_loss: float


def origin(first_eval: float, recipe_sha256: str) -> str:
    """Return the history of no step: where training starts from."""
    return _hash([recipe_sha256, first_eval])


def chained(history: str, record: StepRecord) -> str:
    """Return the history after one more step; clocks and memory are no part of it."""
    numbers = [record.step, record.loss, record.scalars, record.eval, record.skipped]
    return _hash([history, *numbers, record.block_losses])


@dataclass(frozen=True)
class Past:
    """The steps of a journal, its first evaluation and the history of no step.

    `margin` is that of `replaces_best`.
    """

    origin: str
    first_eval: float
    steps: Iterable[StepRecord]
    margin: float = 0.0

    def histories(self) -> Iterator[str]:
        """Yield the history of no step, then that after each."""
        history = self.origin
        yield history
        for record in self.steps:
            history = chained(history, record)
            yield history

    def at(self, step: int) -> Moment:
        """Return the moment after `step` steps, which the journal has."""
        history, best_step, best_loss = self.origin, 0, self.first_eval
        for record in islice(self.steps, step):
            history = chained(history, record)
            if record.eval is not None and replaces_best(
                record.eval, best_loss, self.first_eval, self.margin
            ):
                best_step, best_loss = record.step + 1, record.eval
        return Moment(history, best_step, best_loss)


def _hash(values: list[object]) -> str:
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).hexdigest()[:32]
