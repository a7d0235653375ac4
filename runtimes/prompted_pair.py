"""Two frozen models with one prompt of words in front of every text, each in its own tokens."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_train.arrays.types import Array, Batch, Point
from edge_train.runtimes.prompted import BLOCK, PromptedTokens

SECOND = "second "  # before the names of what a batch has for the second model
_MARGIN = 1.0  # nats by which a model has to be worse to count e times as much as the other


class PromptedPair:
    """Asks two models, and gives one loss for both.

    The block is the prompt of the first model, (tokens,); `other` says what it is in the tokens of
    the second. Where several prompts are compared, the first of them is the one that stands, and
    each sample's losses are weighted by its margin there: the model that is worse at the sample
    counts more, by the sigmoid of the difference. One prompt alone counts half and half.

    Args:
      other: ids of the first model to those of the second.

    Source: the margin-adaptive weights of Joint-GCG (METHODS 13). We differ: the margin is of the
    losses of a sample, not of ranks, and weights losses, not gradients.
    """

    pages = None

    def __init__(
        self,
        first: PromptedTokens,
        second: PromptedTokens,
        other: Callable[[Sequence[int]], Sequence[int]],
    ) -> None:
        self.first, self.second, self._other = first, second, other
        self.parameters = first.parameters
        self.device, self.dtype = first.device, first.dtype

    @property
    def batch_limit(self) -> int | None:
        """Most texts in one call of an engine; None: as many as are worth it."""
        return self.first.batch_limit

    @batch_limit.setter
    def batch_limit(self, limit: int | None) -> None:
        self.first.batch_limit = self.second.batch_limit = limit

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on."""
        self.first.use_threads(count)
        self.second.use_threads(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the weighted losses of both models, (points, texts)."""
        own = {name: v for name, v in batch.items() if not name.startswith(SECOND)}
        others = {n.removeprefix(SECOND): v for n, v in batch.items() if n.startswith(SECOND)}
        one = self.first.forward(own, points)
        two = self.second.forward(others, [self.beside(point) for point in points])
        share = _shares(one[0], two[0]) if len(points) > 1 else np.float32(0.5)
        found: Array = share * one + (1 - share) * two
        return found

    def beside(self, point: Point) -> dict[str, Any]:
        """Return a prompt as a point of the second model."""
        ids = self._other([int(one) for one in point[BLOCK]])
        return {BLOCK: np.array(ids, np.float32)}

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the first model's token after `ids`."""
        return self.first.next_logits(ids)

    def forget(self) -> None:
        """Let go of what `next_logits` kept."""
        self.first.forget()

    def device_bytes(self) -> int:
        """Return the peak of a discrete device's memory."""
        return self.first.device_bytes() + self.second.device_bytes()

    def close(self) -> None:
        """Let go of both models."""
        self.first.close()
        self.second.close()


def _shares(one: Array, two: Array) -> Array:
    """Return the weight of the first model's loss of each sample, between 0 and 1.

    >>> _shares(np.float32([1, 3]), np.float32([1, 1])).round(2).tolist()
    [0.5, 0.8799999952316284]
    """
    found: Array = 1 / (1 + np.exp(np.clip((two - one) / np.float32(_MARGIN), -30, 30)))
    return found
