"""A pull back to the start: what chance moved and no answer asks for is forgotten."""

from dataclasses import dataclass

import numpy as np

from edge_train.arrays.factored import Update, dense
from edge_train.arrays.types import Array, State


@dataclass(frozen=True)
class Pull:
    """Adds a share of the way back to the start to every update; before the rate in a chain.

    A step along random directions moves a block where no answer changes, too, and nothing brings
    it back: of many steps that is more than what was learned. What answers do ask for holds
    against a weak pull.

    Args:
      share: of the distance from the start, in a step at rate 1.

    Bytes: 4 per coordinate; a temporary block.

    Source: L2-SP (arXiv:1802.01483), of weights of a network; ours is decoupled from the gradient,
    as AdamW's decay is, and of steps along random directions.
    """

    share: float

    def init(self, param: Array) -> State:
        """Return a copy of the start."""
        return {"start": param.copy()}

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the update with the way back in it."""
        back = param - state["start"]
        back *= np.float32(self.share)
        back += dense(update)
        return back
