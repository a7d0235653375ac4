"""Whole documents put together in sequences, without attention from one to another."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, Point
from edge_train.errors import InputError
from edge_train.protocols import Runtime
from edge_train.rng import Key, sample_seeds
from edge_train.tasks.language_model.halves import MOST_SCORED, spread

_HELD_OUT = 10  # every tenth document, where no file has those to hold out
FEWEST = 3  # documents: to train on, to choose the best weights by, to report on
_PADDING = 0  # any token: it has no weight, and nothing attends to it
Rows = list[NDArray[np.int64]]  # the documents of each sequence


@dataclass(frozen=True)
class PackedDocuments:
    """Cross-entropy of the next counted token of documents, many of them in a sequence.

    A batch holds `ids` (sequences, length + 1); `weight` (sequences, length), which is 0 where
    nothing is learned and such that the mean over sequences is the mean over counted tokens of the
    batch; and, where documents are kept apart, `document` (sequences, length): attention stays
    within equal numbers and positions begin again with each. Every epoch shows every sequence
    once, in an order of its own.

    Args:
      ids: of all documents, one behind the other; may be a mapped file.
      starts: where each document begins in them, and the end, (documents + 1,).
      counted: ranges of the ids that are to be predicted, ascending, (ranges, 2); None: all.
      length: tokens that are predicted in a sequence; it holds one more, and no document is longer.
      samples: sequences in a batch.
      evaluation_samples: at most this many in the evaluation batch.
      held: so many documents at the end are to be held out; None: every tenth is.
      smoothing: share of a target that all tokens get; of training only.
      dropout: whether a batch of training says how dropout is drawn.
      sources: where each document begins and the number of its source, (documents, 2), for
        `HasSources`: a sequence then holds documents of one source; None: not told apart.
      apart: whether documents are kept apart in a sequence; else it has one.
      choices: the tokens that answers begin with, (answers,): these alone are predicted, each among
        the others (`choices` of a batch, (sequences, answers)); None: all counted ids are.

    Raises:
      InputError: there are too few documents.
    """

    ids: NDArray[Any]
    starts: NDArray[np.int64]
    counted: NDArray[np.int64] | None
    length: int
    samples: int
    evaluation_samples: int
    held: int | None = None
    smoothing: float = 0.0
    dropout: bool = False
    sources: NDArray[np.int64] | None = None
    apart: bool = True
    choices: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        count, held = len(self.starts) - 1, self.held
        if held is None and count < FEWEST:
            raise InputError(
                f"the data have {count} documents that can be used; at least {FEWEST} are needed: "
                "to train on, to choose the best weights by, and to report on."
            )
        if held is not None and not 0 < held < count:
            raise InputError(
                f"the data have {count} documents that can be used, {held} of them in the file that"
                " is held out; at least one of each is needed."
            )

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The tokens of each document."""
        return np.diff(self.starts)

    @cached_property
    def parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The documents to train on, to choose the best weights by, and to report on."""
        count = len(self.starts) - 1
        if self.held is None:
            most = max(FEWEST - 1, count // _HELD_OUT)
            held = (np.arange(most) * 2 + 1) * count // (2 * most)  # spread over all of them
        else:
            held = np.arange(count - self.held, count)
        train = np.delete(np.arange(count), held)
        return train, held[::2], held[1::2] if len(held) > 1 else held

    @cached_property
    def rows(self) -> tuple[Rows, Rows, Rows]:
        """The sequences of each part."""
        train, choose, report = (self._packed(part) for part in self.parts)
        return train, choose, report

    @property
    def counted_tokens(self) -> int:
        """How many ids are to be predicted."""
        if self.counted is None:
            return len(self.ids) - len(self.sizes)
        return int(np.diff(self.counted).sum())

    def batch(self, key: Key) -> Batch:
        """Return the sequences of one step."""
        rows = self.rows[0]
        places = key.step * self.samples + np.arange(self.samples)
        epochs, within = np.divmod(places, len(rows))
        orders = {e: Key(key.seed, e).generator("epoch").permutation(len(rows)) for e in {*epochs}}
        chosen = [rows[orders[e][n]] for e, n in zip(epochs, within, strict=True)]
        batch = dict(self._batch(chosen))
        if self.smoothing:
            batch["smoothing"] = np.full(self.samples, self.smoothing, np.float32)
        if self.dropout:
            batch["dropout"] = sample_seeds(key, "dropout", self.samples)
        if self.sources is not None:
            batch["source"] = np.array([self.sources[row[0], 1] for row in chosen], np.int64)
        return batch

    @cached_property
    def source_sizes(self) -> NDArray[np.int64]:
        """Sequences of each source; see `HasSources`."""
        if self.sources is None:
            return np.array([len(self.rows[0])])
        most = int(self.sources[:, 1].max()) + 1
        return np.bincount([self.sources[row[0], 1] for row in self.rows[0]], minlength=most)

    @property
    def windows(self) -> int:
        """How many sequences there are to train on."""
        return len(self.rows[0])

    def evaluation(self) -> Batch:
        """Return the fixed batch that chooses the best weights."""
        return self._batch(_some(self.rows[1], self.evaluation_samples))

    def held_out(self, most: int = MOST_SCORED) -> Batch:
        """Return at most so many of the sequences that the report is about."""
        return self._batch(_some(self.rows[2], most))

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return weighted sums of cross-entropies in nats, (points, samples)."""
        return runtime.forward(batch, points)

    def scored(self, batch: Batch) -> int:
        """Return how many tokens count in a batch."""
        return int(np.count_nonzero(batch["weight"]))

    def opening(self) -> list[int]:
        """Return the beginning of a document of the report, up to its first answer.

        It is of the first document whose beginning leaves a quarter of a sequence, else cut.
        """
        found = [self._before_answer(number) for number in self.parts[2].tolist()]
        most = max(1, 3 * self.length // 4)
        fitting = next((one for one in found if 0 < len(one) <= most), found[0][:most])
        opening: list[int] = fitting.tolist() or self.ids[:1].tolist()
        return opening

    def counts_of(self, number: int) -> NDArray[np.bool_]:
        """Return which tokens of a document are to be predicted; the first never is."""
        start, end = self.starts[number : number + 2].tolist()
        found = np.zeros(end - start, bool)
        if self.counted is None:
            found[:] = True
        else:
            first = int(np.searchsorted(self.counted[:, 1], start, side="right"))
            for begin, stop in self.counted[first:]:
                if begin >= end:
                    break
                last = stop if self.choices is None else begin + 1
                found[max(begin - start, 0) : last - start] = True
        found[0] = False
        return found

    def _before_answer(self, number: int) -> NDArray[np.int64]:
        start = int(self.starts[number])
        counts = self.counts_of(number)
        before = int(counts.argmax()) if counts.any() and self.counted is not None else len(counts)
        return self.ids[start : start + before].astype(np.int64)

    def _packed(self, documents: NDArray[np.int64]) -> Rows:
        if not self.apart:
            return [documents[at : at + 1] for at in range(len(documents))]
        if self.sources is not None:
            own = self.sources[documents, 1]
            parts = [documents[own == source] for source in np.unique(own)]
            return [p[s] for p in parts for s in packed(self.sizes[p], self.length + 1)]
        return [documents[some] for some in packed(self.sizes[documents], self.length + 1)]

    def _batch(self, rows: Rows) -> Batch:
        ids = np.full((len(rows), self.length + 1), _PADDING, np.int64)
        weight = np.zeros((len(rows), self.length), np.float32)
        document = np.zeros((len(rows), self.length), np.int32)
        for row, documents in enumerate(rows):
            at = 0
            for number in documents.tolist():
                size = int(self.sizes[number])
                start = int(self.starts[number])
                ids[row, at : at + size] = self.ids[start : start + size]
                weight[row, at : at + size - 1] = self.counts_of(number)[1:]
                at += size
                document[row, at:] += 1  # the last number is that of the padding
        weight *= np.float32(len(rows) / weight.sum(dtype=np.float64))
        batch: dict[str, NDArray[Any]] = {"ids": ids, "weight": weight}
        if self.choices is not None:
            batch["choices"] = np.tile(self.choices, (len(rows), 1))
        return {**batch, "document": document} if self.apart else batch


def packed(sizes: NDArray[np.int64], room: int) -> Rows:
    """Return which documents go together: the largest first, each where the least is left.

    Args:
      sizes: tokens of every document, at most `room`.

    >>> [some.tolist() for some in packed(np.array([2, 7, 3, 5]), 8)]
    [[1], [3, 2], [0]]
    """
    rows: list[list[int]] = []
    free: dict[int, list[int]] = {}  # what is left -> the sequences that have it
    rooms: list[int] = []  # the keys of `free`, ascending
    for number in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[number])
        place = bisect_left(rooms, size)
        if place < len(rooms):
            left = rooms[place]
            row = free[left].pop()
            if not free[left]:
                del free[left], rooms[place]
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].append(number)
        if (left := left - size) not in free:
            free[left] = []
            insort(rooms, left)
        free[left].append(row)
    return [np.array(row, np.int64) for row in rows]


def _some(rows: Rows, most: int) -> Rows:
    return [rows[place] for place in spread(len(rows), most)]
