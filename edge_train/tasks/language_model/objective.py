"""Predict the next token: sequences packed one behind the other, the end of the text held out."""

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
from edge_train.tasks.language_model.halves import MOST_SCORED, half, spread

_HELD_OUT = 10  # the last tenth of the tokens
_OPENING = 16  # tokens that are continued


@dataclass(frozen=True)
class LanguageModel:
    """Cross-entropy of the next token in windows of a text.

    Every epoch shows every window once, in an order and from an offset of its own. Where the text
    is of several documents, a batch says which (`document`), and what follows the end of one has
    no weight (`weight`); see `PackedDocuments`.

    Args:
      ids: of the whole text; may be a mapped file.
      length: tokens that are predicted in a sequence; it holds one more.
      samples: sequences in a batch.
      evaluation_samples: at most this many in the evaluation batch.
      held: of the ids, so many at the end are of texts to hold out; None: a tenth is held out.
      smoothing: share of a target that all tokens get; of training only.
      dropout: whether a batch of training says how dropout is drawn.
      starts: where each document begins, where attention stays within documents; None: it does not.
      sources: where each document begins and the number of its source, (documents, 2), for
        `HasSources`: a window is of the source of the token in its middle; None: not told apart.
      halves: whether other windows choose the best weights than are reported on; runs of earlier
        code took both from the same ones.

    Raises:
      InputError: the text is too short for two sequences to train on and one to hold out.
    """

    ids: NDArray[Any]
    length: int
    samples: int
    evaluation_samples: int
    held: int | None = None
    smoothing: float = 0.0
    dropout: bool = False
    starts: NDArray[np.int64] | None = None
    sources: NDArray[np.int64] | None = None
    halves: bool = True

    def __post_init__(self) -> None:
        least = min(len(self._train) - self.length, len(self._held) - 1)
        if least < self.length:
            needs = f"needs {(self.length + 1) * _HELD_OUT}"
            if self.held is not None:
                needs = f"needs {2 * self.length} to train on and {self.length + 1} held out"
            raise InputError(
                f"the text has {len(self.ids)} tokens, the last {len(self._held)} of them held "
                f"out; a length of {self.length} {needs}. Use a shorter --length, or a longer text."
            )

    @property
    def _train(self) -> NDArray[Any]:
        return self.ids[: len(self.ids) - len(self._held)]

    @property
    def _held(self) -> NDArray[Any]:
        count = len(self.ids) // _HELD_OUT if self.held is None else self.held
        return self.ids[len(self.ids) - count :]

    def batch(self, key: Key) -> Batch:
        """Return the sequences of one step as ids (samples, length + 1), int64."""
        count = self.windows
        places = key.step * self.samples + np.arange(self.samples)
        epochs, rows = np.divmod(places, count)
        starts = np.empty(len(rows), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            draw = Key(key.seed, int(epoch)).generator("epoch")
            offset = draw.integers(self.length)
            starts[here] = draw.permutation(count)[rows[here]] * self.length + offset
        batch = dict(self._windows(starts))
        if self.smoothing:
            batch["smoothing"] = np.full(self.samples, self.smoothing, np.float32)
        if self.dropout:
            batch["dropout"] = sample_seeds(key, "dropout", self.samples)
        if self.sources is not None:
            batch["source"] = source_at(self.sources, starts + self.length // 2)
        return batch

    @property
    def windows(self) -> int:
        """How many there are to train on."""
        return (len(self._train) - self.length) // self.length

    @cached_property
    def source_sizes(self) -> NDArray[np.int64]:
        """Windows of each source; see `HasSources`."""
        if self.sources is None:
            return np.array([self.windows])
        middles = np.arange(self.windows) * self.length + self.length // 2
        most = int(self.sources[:, 1].max()) + 1
        return np.bincount(source_at(self.sources, middles), minlength=most)

    def evaluation(self) -> Batch:
        """Return the fixed batch that chooses the best weights, spread over the held-out text."""
        return self._held_windows(self.evaluation_samples, second=False)

    def held_out(self, most: int = MOST_SCORED) -> Batch:
        """Return at most so many sequences of the held-out text, those that the report is about."""
        return self._held_windows(most, second=True)

    def scored(self, batch: Batch) -> int:
        """Return how many tokens count in a batch."""
        counted = batch.get("weight", batch["ids"][:, 1:] >= 0)
        return int(np.count_nonzero(counted))

    def opening(self) -> list[int]:
        """Return the first tokens of the text that is reported on, at most half of a sequence."""
        ids: NDArray[np.int64] = self.held_out(1)["ids"][0]
        first: list[int] = ids[: max(1, min(_OPENING, self.length // 2))].tolist()
        return first

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return cross-entropies in nats a token, (points, samples)."""
        return runtime.forward(batch, points)

    def _held_windows(self, most: int, second: bool) -> Batch:
        count = (len(self._held) - 1) // self.length
        found = half(count, second) if self.halves else np.arange(count)
        return self._windows(len(self._train) + found[spread(len(found), most)] * self.length)

    def _windows(self, starts: NDArray[np.int64]) -> Batch:
        places = starts[:, None] + np.arange(self.length + 1)
        ids = self.ids[places].astype(np.int64)
        if self.starts is None:
            return {"ids": ids}
        numbers = np.searchsorted(self.starts, places, side="right")
        numbers -= numbers[:, :1]
        weight = (numbers[:, 1:] == numbers[:, :-1]).astype(np.float32)
        weight *= np.float32(len(ids) / max(weight.sum(dtype=np.float64), 1.0))
        return {"ids": ids, "weight": weight, "document": numbers[:, :-1].astype(np.int32)}


def source_at(sources: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the source of the document that each token is of.

    Args:
      sources: where documents begin and their sources, (documents, 2).
    """
    documents = np.searchsorted(sources[:, 0], places, side="right") - 1
    found: NDArray[np.int64] = sources[np.maximum(documents, 0), 1]
    return found
