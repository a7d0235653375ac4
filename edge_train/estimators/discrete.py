"""Coordinate search over the tokens of a prompt: one token a step, by forward passes only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Batch, Point
from edge_train.errors import NonFinite
from edge_train.protocols import Apply, Estimate, Objective, Runtime
from edge_train.rng import Key

KEPT = 4  # of the candidates, one in so many goes on; a first look takes so small a part of a batch


class Propose(Protocol):
    """Where candidates come from."""

    def __call__(
        self, key: Key, ids: Sequence[int], position: int, count: int
    ) -> NDArray[np.int64]:
        """Return at most so many ids for a position, none of them the one that stands there."""
        ...


@dataclass(frozen=True)
class CoordinateSearch:
    """Tries other tokens at one position of a prompt, and keeps the best if it is better.

    The only block of the runtime is the prompt, (tokens,): whole numbers in float32, which holds
    those below 2^24 exactly. A step takes the next position of a random order (a new one every
    `tokens` steps), draws candidates for it, and halves them in two looks at the same batch:
    all of them at a quarter of its samples, then the best quarter at the rest. The lowest mean over
    the whole batch replaces the token if it is below that of the prompt as it stands: all are
    compared on the same samples, so what is common to them cancels.

    The gradient that is applied is old ids - new ids, to be subtracted as it is, at rate 1. The
    scalars are the position and its id: a journal rebuilds every prompt without the model.

    Args:
      candidates: tokens that a step tries.
      propose: returns them.

    Memory: the losses of a step; token ids of a batch for each candidate (the runtime's).

    Source: the search of Joint-GCG (METHODS 13, candidates scored by batched forward passes) and
    successive halving (Karnin et al., 2013). We differ: no gradients of tokens, so candidates are
    drawn; and one look at half is left out, since batches are small.
    """

    candidates: int
    propose: Propose

    def estimate(
        self, runtime: Runtime, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Search one position and hand `apply` the change.

        Raises:
          NonFinite: a loss is not finite; nothing was applied.
        """
        ((name, block),) = runtime.parameters.items()
        ids = [int(one) for one in block]
        position = position_of(key, len(ids))
        drawn = self.propose(key, ids, position, self.candidates)
        points: list[Point] = [{name: block}, *({name: _with(block, position, i)} for i in drawn)]
        samples = len(next(iter(batch.values())))
        few = max(1, samples // KEPT)
        first = _losses(task, runtime, batch, slice(0, few), points)
        order = np.argsort(first[1:].mean(axis=1), kind="stable")
        some = [0, *(order[: -(-len(drawn) // KEPT)] + 1).tolist()]
        losses, forwards = first[some], first.size
        if few < samples:
            kept = [points[one] for one in some]
            rest = _losses(task, runtime, batch, slice(few, samples), kept)
            losses, forwards = np.concatenate([losses, rest], axis=1), forwards + rest.size
        means = losses.mean(axis=1)
        best = int(means.argmin())
        chosen = points[some[best]][name] if means[best] < means[0] else block
        scalars = (float(position), float(chosen[position]))
        self.replay(scalars, runtime.parameters, key, apply)
        return Estimate(float(means[0]), scalars, forwards=forwards)

    def replay(self, scalars: Sequence[float], parameters: Point, key: Key, apply: Apply) -> None:
        """Emit the change that belongs to a position and the id that was chosen for it."""
        ((name, block),) = parameters.items()
        position, token = int(scalars[0]), scalars[1]
        change = np.zeros_like(block)
        change[position] = block[position] - np.float32(token)
        apply(name, change)


def position_of(key: Key, tokens: int) -> int:
    """Return which position a step searches: each once in `tokens` steps.

    >>> sorted(position_of(Key(0, step), 3) for step in range(3, 6))
    [0, 1, 2]
    """
    turn, place = divmod(key.step, tokens)
    return int(Key(key.seed, turn).generator("positions").permutation(tokens)[place])


def _with(block: NDArray[np.float32], position: int, token: int) -> NDArray[np.float32]:
    changed = block.copy()
    changed[position] = token
    return changed


def _losses(
    task: Objective, runtime: Runtime, batch: Batch, at: slice, points: Sequence[Point]
) -> NDArray[np.float64]:
    """Return losses (points, samples of `at`).

    Raises:
      NonFinite: one is not finite.
    """
    part = {name: values[at] for name, values in batch.items()}
    found = task.loss(runtime, part, points).astype(np.float64)
    if not np.isfinite(found).all():
        raise NonFinite("a loss of the step is not finite")
    return found
