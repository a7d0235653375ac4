"""APOLLO: an update as long as Adam's would be, measured in a random projection."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edge_train.arrays.factored import Factors, Gradient, Update, dense, scale
from edge_train.arrays.types import Array, State
from edge_train.optim.bases import RandomVectors, as_tall, restore_shape
from edge_train.optim.low_rank import Moments, is_projected, with_prefix, without_prefix
from edge_train.optim.transforms import for_block

_NEGLIGIBLE_UPDATE = 0.1  # share of the usual length of an update; below it a length says nothing
_NO_GRADIENT = 1e-30  # a length; nothing is divided by less, else float32 would not hold the ratio


@dataclass(frozen=True)
class Apollo:
    """Scales the raw gradient as Adam would, with moments of a random projection of it alone.

    With R = G P^T and A the inner transform: each row of the standing gradient is multiplied by
    |A(R)_j| / |R_j| ("rows"), or all of it by |A(R)| / |R| ("tensor", APOLLO-Mini). The update may
    then grow by 1 % a step.

    Args:
      inner: the transform of the projection, and that of blocks without one.
      basis: drawn anew every `refresh_every` steps; moments are kept then, as in the paper.
      scale: multiplies the update; the papers' alpha is its square.

    Bytes: 8 * rank per row of the longer side, and 24.

    Source: APOLLO (arXiv:2412.05270), with its limit of growth. Its code compares with the step
    before, however small: after one gradient of zeros it holds updates down for a thousand steps.
    Here lengths below a tenth of an update's usual sqrt(rows * rank) count as that tenth.
    """

    inner: Moments
    basis: RandomVectors
    refresh_every: int
    scale: float = 1.0
    by: Literal["rows", "tensor"] = "rows"
    growth: float = 1.01

    def init(self, param: Array) -> State:
        """Return the moments of the projection, the number of its draw and the last length."""
        if not is_projected(param.shape, self.basis.rank):
            return with_prefix("inner.", self.inner.init(param))
        long, short = as_tall(param).shape
        return {
            **with_prefix("basis.", self.basis.init(short)),
            **with_prefix("inner.", self.inner.init(np.zeros((long, self.basis.rank), np.float32))),
            "count": np.zeros(1, np.int64),
            "length": np.zeros(1, np.float32),
        }

    def rule(self, name: str) -> "Apollo":
        """Return the rule of a block."""
        return replace(self, inner=for_block(self.inner, name))

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the scaled gradient; of factors, with its scales in one of them."""
        inner = without_prefix("inner.", state)
        if not is_projected(param.shape, self.basis.rank):
            return self.inner.update(update, inner, param)
        basis = without_prefix("basis.", state)
        standing: Gradient = as_tall(update if isinstance(update, Factors) else dense(update))
        epoch, late = divmod(int(state["count"][0]), self.refresh_every)
        if late == 0:
            self.basis.refresh(standing, basis, epoch)
        state["count"] += 1
        low = self.basis.project(standing, basis)
        moved = dense(self.inner.update(low, inner, low))
        axis = 1 if self.by == "rows" else None
        before, after = (
            np.linalg.norm(values.astype(np.float64), axis=axis, keepdims=True)
            for values in (low, moved)  # squares of float32 overflow or vanish
        )
        ratio: Array = (after / np.where(before > _NO_GRADIENT, before, 1)).astype(np.float32)
        scaled: Gradient
        if isinstance(standing, Factors):
            scaled = Factors(standing.left * ratio.T, standing.right)
            length = scaled.norm()
        else:
            scaled = standing * ratio
            length = float(np.linalg.norm(scaled))
        if state["count"][0] > 1:
            least = _NEGLIGIBLE_UPDATE * math.sqrt(low.size)
            most = self.growth * max(float(state["length"][0]), least)
            if length > most:
                scale(scaled, most / length)
                length = most
        state["length"][0] = length
        scale(scaled, self.scale)
        return restore_shape(scaled, param.shape)
