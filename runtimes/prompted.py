"""A frozen model of any engine with a prompt of token ids in front of every text."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point

BLOCK = "prompt"
# Texts that an engine gets together, unless its limit allows more: of about one length, so that
# little is padding.
_AT_ONCE = 8


class Frozen(Protocol):
    """An engine that is asked for losses, and that nothing changes in."""

    parameters: Any
    device: str
    dtype: str
    batch_limit: int | None

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses, (points, samples)."""
        ...

    def use_threads(self, count: int) -> None:
        """Compute with so many threads."""
        ...

    def device_bytes(self) -> int:
        """Return the peak of a discrete device's memory."""
        ...

    def close(self) -> None:
        """Let go of the model."""
        ...


class PromptedTokens:
    """Puts a prompt's ids where every text of a batch has room for them, and asks the engine.

    `parameters` hold the prompt alone: `prompt`, (tokens,), whole numbers in float32, which holds
    those below 2^24 exactly. A batch holds `ids` (samples, length), with any ids at the places of
    the prompt, and `weight` or `mask` (samples, length), which says where a text ends.

    Args:
      frozen: the engine; its own parameters stay as they are.
      ids: that the prompt begins as.
      at: tokens of a text before it.

    Memory: the ids of a batch, once for each point.
    """

    pages = None

    def __init__(self, frozen: Any, ids: Sequence[int], at: int) -> None:
        self._frozen: Any = frozen
        self._places = slice(at, at + len(ids))
        self.parameters = Parameters({BLOCK: np.array(ids, np.float32)})
        self.device, self.dtype = frozen.device, frozen.dtype

    @property
    def batch_limit(self) -> int | None:
        """Most texts in one call of the engine; None: as many as are worth it."""
        limit: int | None = self._frozen.batch_limit
        return limit

    @batch_limit.setter
    def batch_limit(self, limit: int | None) -> None:
        self._frozen.batch_limit = limit

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on."""
        self._frozen.use_threads(count)

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every text with each prompt, (points, texts)."""
        count = len(batch["ids"])
        whole = self._prompted(batch, points)
        ends = _ends(whole)
        order = np.argsort(ends, kind="stable")
        losses = np.empty(len(order), np.float32)
        most = max(_AT_ONCE, self.batch_limit or 0)
        for start in range(0, len(order), most):
            rows = order[start : start + most]
            some = _cut(whole, rows, int(ends[rows].max()))
            losses[rows] = self._frozen.forward(some, [self._frozen.parameters])[0]
        return losses.reshape(len(points), count)

    def logits(self, batch: Batch, point: Point) -> Array:
        """Return the outputs (texts, classes) of a classifier with a prompt."""
        found: Array = self._frozen.logits(self._prompted(batch, [point]), self._frozen.parameters)
        return found

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`, with the prompt where it stands."""
        found: Array = self._frozen.next_logits(self.with_prompt(ids))
        return found

    def with_prompt(self, ids: Sequence[int]) -> list[int]:
        """Return the ids of a text with those of the prompt in their places."""
        prompt = [int(one) for one in self.parameters[BLOCK]]
        return [*ids[: self._places.start], *prompt, *ids[self._places.stop :]]

    def forget(self) -> None:
        """Let go of what `next_logits` kept."""
        self._frozen.forget()

    def device_bytes(self) -> int:
        """Return the peak of a discrete device's memory."""
        found: int = self._frozen.device_bytes()
        return found

    def close(self) -> None:
        """Let go of the model."""
        self._frozen.close()

    def _prompted(self, batch: Batch, points: Sequence[Point]) -> dict[str, NDArray[Any]]:
        """Return a batch once for each prompt, one behind the other."""
        found = {name: np.concatenate([values] * len(points)) for name, values in batch.items()}
        prompts = np.stack([point[BLOCK] for point in points]).astype(np.int64)
        found["ids"][:, self._places] = np.repeat(prompts, len(batch["ids"]), axis=0)
        return found


def _ends(batch: Batch) -> NDArray[np.int64]:
    """Return how many places of each text are read: up to the last one that counts."""
    counts = batch["weight"] if "weight" in batch else batch["mask"]
    width: int = counts.shape[1]
    ends: NDArray[np.int64] = width - (counts[:, ::-1] != 0).argmax(axis=1)
    return ends


def _cut(batch: Batch, rows: NDArray[np.int64], end: int) -> dict[str, NDArray[Any]]:
    """Return some texts without the places that none of them has."""
    found = {name: values[rows] for name, values in batch.items()}
    if "weight" in found:  # what is predicted from a place stands one further on
        found |= {"ids": found["ids"][:, : end + 1], "weight": found["weight"][:, :end]}
        return {name: np.ascontiguousarray(values) for name, values in found.items()}
    for name in ("ids", "mask", "types"):
        if name in found:
            found[name] = np.ascontiguousarray(found[name][:, :end])
    return found
