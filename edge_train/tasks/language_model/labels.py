"""Chats whose answers are a few fixed ones: the loss among these alone, and how many are right."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import InputError
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

LABELS = "labels"  # what `loss_on` may be
MOST_ANSWERS = 64
MOST_JUDGED = (
    512  # held-out chats that the accuracy is of: each takes a pass for every answer but one
)


@dataclass(frozen=True)
class Answers:
    """The answers of some data.

    Attributes:
      firsts: the tokens that they begin with, ascending, and the tokens of each.
      cut: chats that keep only the beginning of theirs.
    """

    firsts: dict[int, tuple[int, ...]]
    cut: int = 0


def answers_in(
    ids: NDArray[Any],
    starts: NDArray[np.int64],
    counted: NDArray[np.int64] | None,
    data: object,
    shortened: Collection[int] = (),
) -> Answers:
    """Return the answers of chats.

    One that was cut and that another one begins with is no answer of its own.

    Args:
      starts: of documents, and the end.
      counted: ranges of ids that are answers, (ranges, 2).
      shortened: documents that lost their end.

    Raises:
      InputError: a document has more than one answer, there are too few or too many different ones,
        or two begin alike.
    """
    ranges = np.empty((0, 2), np.int64) if counted is None else counted
    if len(ranges) != len(starts) - 1:
        raise InputError(
            f"{data}: --loss-on labels needs one answer in each chat, and {len(starts) - 1} chats "
            f"have {len(ranges)}; use --loss-on completions."
        )
    found = [tuple(ids[begin:end].tolist()) for begin, end in ranges.tolist()]
    cut = [n for n in shortened if ranges[n, 1] == starts[n + 1]]
    answers = _without_beginnings(found, {*cut})
    if not 2 <= len(answers) <= MOST_ANSWERS:
        raise InputError(
            f"{data}: --loss-on labels tells 2 to {MOST_ANSWERS} different answers apart, and the "
            f"data have {len(answers)}; use --loss-on completions."
        )
    firsts = {answer[0]: answer for answer in sorted(answers)}
    if len(firsts) < len(answers):
        raise InputError(
            f"{data}: --loss-on labels tells answers apart by their first token, and "
            f"{len(answers)} answers begin with {len(firsts)}; word them otherwise, or use "
            "--loss-on completions."
        )
    return Answers(firsts, sum(found[n] not in answers for n in cut))


def _without_beginnings(found: list[tuple[int, ...]], cut: set[int]) -> set[tuple[int, ...]]:
    """Return different answers, without those that are only there cut and that others begin with.

    >>> sorted(_without_beginnings([(1, 2), (3,), (1,), (4,)], {2, 3}))
    [(1, 2), (3,), (4,)]
    """
    whole = {answer for number, answer in enumerate(found) if number not in cut}
    # in order, the answers that begin with another one stand right behind it
    beginnings = {a for a, b in pairwise(sorted(set(found))) if b[: len(a)] == a}
    return set(found) - (beginnings - whole)


def check_labels(recipe: LanguageModelRecipe) -> None:
    """Refuse what a loss among a few answers does not go with.

    Raises:
      InputError: as described.
    """
    if recipe.loss_on != LABELS:
        return
    for name in ("label_smoothing", "batch_selection"):
        if getattr(recipe, name):
            raise InputError(f"{name} is not for --loss-on labels; leave one of them out.")


class Judged(Protocol):
    """An engine."""

    parameters: Any

    def forward(self, batch: Batch, points: list[Point]) -> Array:
        """Return losses, (points, sequences)."""
        ...


@dataclass(frozen=True)
class Verdict:
    """How many answers were right.

    Attributes:
      labels: the number of the right answer of every chat, (chats,).
      found: that of the answer with the highest probability.
    """

    labels: NDArray[np.int64]
    found: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of chats whose answer is right."""
        return float((self.labels == self.found).mean())


def judge(runtime: Judged, batch: Batch) -> Verdict:
    """Return which of the answers a model gives to each chat, as its parameters are.

    Args:
      batch: of sequences of one chat each, with `choices` (sequences, answers), the tokens that
        answers begin with; `weight` is above 0 at the place that predicts it and nowhere else.
    """
    rows, places = np.nonzero(batch["weight"])
    if len(rows) != len(batch["ids"]) or len(np.unique(rows)) != len(rows):
        raise ValueError("each sequence holds one answer")
    choices = batch["choices"][0]
    shares = np.empty((len(choices), len(rows)))
    for number, token in enumerate(choices[:-1].tolist()):
        ids = batch["ids"].copy()
        ids[rows, places + 1] = token
        weight = (batch["weight"] > 0).astype(np.float32)
        part = {**batch, "ids": ids, "weight": weight}
        shares[number] = np.exp(-runtime.forward(part, [runtime.parameters])[0].astype(np.float64))
    shares[-1] = 1 - shares[:-1].sum(axis=0)
    labels = np.searchsorted(choices, batch["ids"][rows, places + 1])
    return Verdict(labels.astype(np.int64), shares.argmax(axis=0))
