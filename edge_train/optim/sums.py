"""A step whose batch is differentiated in parts: what is held from one part to the next."""

import math
from collections.abc import Callable

import numpy as np

from edge_train.arrays.factored import Factors, Gradient, Update, Whole, added, dense
from edge_train.arrays.types import Array, State
from edge_train.protocols import Projecting, Share, Transform


def ignored(total: Update) -> None:
    """Do nothing with a sum."""


class Sums:
    """One running sum a block, empty between steps, so that checkpoints know nothing of it.

    What is summed is what the block's rule reads of a gradient: its projection (long, rank) where
    the rule is a `Projecting` one that projects the block, else the gradient itself. Factors are
    added by standing them on each other, as long as that holds fewer numbers than their product.
    """

    def __init__(self) -> None:
        self.held: dict[str, Array | Factors] = {}

    def add(
        self,
        name: str,
        part: Share,
        rule: Transform,
        state: State,
        param: Array,
        seen: Callable[[Update], None] = ignored,
    ) -> Update | None:
        """Add a part; return the update by the whole sum after the last one, None before.

        Args:
          seen: is shown the whole sum, where nothing of it was dropped by a projection.
        """
        total = self.total(name, part, rule, state, param)
        if total is None:
            return None
        if total.shape == param.shape:
            seen(total)
        if isinstance(total, Factors):
            return rule.update(total, state, param)
        if isinstance(rule, Projecting) and total.shape != param.shape:
            return rule.update_projected(total, state, param)
        return rule.update(Whole(total) if total.ndim == 2 else total, state, param)

    def total(
        self, name: str, part: Share, rule: Transform, state: State, param: Array
    ) -> Array | Factors | None:
        """Add a part; return the sum after the last one, projected where `rule` does so."""
        kept = part.gradient
        if isinstance(rule, Projecting):
            kept = rule.project(kept, state, param)
        total = self.held[name] = _plus(self.held.get(name), kept, np.float32(part.share))
        if not part.last:
            return None
        del self.held[name]
        return total


def held_numbers(shape: tuple[int, ...], tokens: int) -> int:
    """Return how many numbers the sum of a matrix's factors holds, of so many tokens.

    >>> held_numbers((4096, 4096), tokens=256), held_numbers((40, 16), tokens=256)
    (2097152, 640)
    """
    return min(tokens * sum(shape), math.prod(shape))


def remade_numbers(shape: tuple[int, ...], tokens: int) -> int:
    """Return how many numbers the sum of an output layer's gradients holds, of so many tokens.

    Its errors are made again from hidden states, as many as stand in the other factor.

    >>> remade_numbers((128_000, 16), tokens=100)
    3200
    """
    return min(2 * tokens * shape[1], math.prod(shape))


def looked_up_numbers(shape: tuple[int, int], tokens: int, *, is_output: bool) -> int:
    """Return how many numbers the sum of a table's gradients holds: the rows of so many tokens.

    Args:
      is_output: the table is the output layer, too, whose gradient is held beside the rows.

    >>> looked_up_numbers((128_000, 16), tokens=100, is_output=False)
    1600
    >>> looked_up_numbers((300, 16), tokens=8, is_output=True)
    384
    """
    rows = tokens * shape[1]
    return min(rows + remade_numbers(shape, tokens) * is_output, math.prod(shape))


def _plus(total: Array | Factors | None, part: Gradient, share: np.float32) -> Array | Factors:
    """Return the sum with a share of a part; nothing of the part is kept alive."""
    if isinstance(part, Factors):
        if total is None or isinstance(total, Factors):
            before = [total] if total is not None else []
            if sum(one.numbers for one in (*before, part)) < part.size:
                part.scale(float(share))
                return added([*before, part])
            total = np.zeros(part.shape, np.float32) if total is None else dense(total)
        for rows, values in part.parts():
            total[rows] += share * values
        return total
    if total is None:
        return share * part
    assert isinstance(total, np.ndarray)
    total += share * part
    return total
