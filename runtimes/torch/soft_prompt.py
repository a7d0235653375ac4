"""A frozen language model on torch with a soft prompt: vectors in place of a prompt's tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Apply
from edge_train.runtimes.prompted import BLOCK
from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
from edge_train.runtimes.torch.card import repeatable


class SoftPrompt:
    """Trains the vectors of a prompt; `parameters` hold `prompt`, (tokens, width), and no more.

    They begin as the vectors of the tokens that stand in the prompt's places, and take the place of
    what the table of words gives there. All else is `AdaptedLanguageModel` without an adapter.

    Args:
      frozen: the engine.
      ids: tokens that stand at the prompt's places in every text.
      at: tokens before them.
      vectors: (tokens, width); None: those of `ids`.

    Memory: the vectors and their gradient; as `AdaptedLanguageModel` beside that.

    Source: prompt tuning (arXiv:2104.08691). We differ: the prompt stands in the system's turn, not
    before the whole text.
    """

    pages = None

    def __init__(
        self,
        frozen: AdaptedLanguageModel,
        ids: Sequence[int],
        at: int,
        vectors: Array | None = None,
    ) -> None:
        self._frozen = frozen
        self._ids, self._places = torch.tensor([list(ids)]), slice(at, at + len(ids))
        self._values: Tensor | None = None
        words = frozen.words()
        if vectors is None:
            with torch.no_grad():
                vectors = words(self._ids.to(frozen.where))[0].float().cpu().numpy()
        self.parameters = Parameters({BLOCK: vectors})
        words.register_forward_hook(self._put)
        self.device, self.dtype = frozen.device, frozen.dtype

    @property
    def batch_limit(self) -> int | None:
        """Most sequences in one call of an evaluation."""
        return self._frozen.batch_limit

    @batch_limit.setter
    def batch_limit(self, limit: int | None) -> None:
        self._frozen.batch_limit = limit

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on: the whole process does."""
        self._frozen.use_threads(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every sequence at each point, (points, sequences)."""
        short = _without_padding(batch)
        return np.concatenate([self._at(point, short) for point in points])

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the gradient of the vectors; return losses (sequences,).

        A loss that is not finite is returned without any gradient.
        """
        vectors = torch.from_numpy(self.parameters[BLOCK]).to(self._frozen.where)
        vectors = vectors.requires_grad_()
        short = _without_padding(batch)
        with self._standing(vectors), repeatable(self._frozen.where):
            losses = self._frozen.losses(short)
            finite = bool(torch.isfinite(losses).all())
            if finite:
                (gradient,) = torch.autograd.grad(losses.mean(), vectors)
        if finite:
            apply(BLOCK, gradient.cpu().numpy())
        return losses.detach().numpy()

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`, whose prompt's places hold its tokens."""
        with self._standing(torch.from_numpy(self.parameters[BLOCK]).to(self._frozen.where)):
            return self._frozen.next_logits(ids)

    def forget(self) -> None:
        """Let go of what `next_logits` kept."""
        self._frozen.forget()

    def device_bytes(self) -> int:
        """Return the most that was held on a card, 0 on the host."""
        return self._frozen.device_bytes()

    def close(self) -> None:
        """Let go of the model."""
        self._frozen.close()

    def _at(self, point: Point, batch: Batch) -> Array:
        with self._standing(torch.from_numpy(point[BLOCK]).to(self._frozen.where)):
            return self._frozen.forward(batch, [self._frozen.parameters])

    @contextmanager
    def _standing(self, vectors: Tensor) -> Iterator[None]:
        """Compute with these vectors in here."""
        self._values = vectors
        try:
            yield
        finally:
            self._values = None

    def _put(self, module: Any, given: tuple[Tensor, ...], found: Tensor) -> Tensor | None:
        """Put the vectors where the prompt's tokens stand: in a text from its beginning on."""
        ids = given[0]
        if self._values is None or ids.shape[1] < self._places.stop:
            return None
        if not bool((ids[:, self._places].cpu() == self._ids).all()):
            return None  # the rest of a text whose beginning was read before
        before, behind = found[:, : self._places.start], found[:, self._places.stop :]
        vectors = self._values.to(found.dtype).expand(len(ids), -1, -1)
        return torch.cat([before, vectors, behind], dim=1)


def _without_padding(batch: Batch) -> Batch:
    """Return sequences without the places that count in none of them, at their end."""
    weight = batch["weight"]
    end = int(np.flatnonzero(weight.any(axis=0)).max()) + 1
    cut = {"ids": batch["ids"][:, : end + 1], "weight": weight[:, :end]}
    return {**batch, **{name: np.ascontiguousarray(values) for name, values in cut.items()}}
