"""A step whose batch is differentiated in parts: what is held from one part to the next."""

from dataclasses import dataclass

import numpy as np

from edge_train.factored import Factors, Gradient, Update, Whole
from edge_train.protocols import Array, Projecting, State, Transform


@dataclass(frozen=True)
class Share:
    """The gradient of some of a step's samples.

    Attributes:
      gradient: of their mean loss.
      share: how many of the step's samples they are; the shares of a step add up to 1.
      last: whether no more of this block's gradient follows in the step.
    """

    gradient: Gradient
    share: float
    last: bool


class Sums:
    """One running sum a block, empty between steps, so that checkpoints know nothing of it.

    What is summed is what the block's rule reads of a gradient: its projection (long, rank) where
    the rule is a `Projecting` one that projects the block, else the gradient itself.
    """

    def __init__(self) -> None:
        self.held: dict[str, Array] = {}

    def add(
        self, name: str, part: Share, rule: Transform, state: State, param: Array
    ) -> Update | None:
        """Add a part; return the update by the whole sum after the last one, None before."""
        kept = part.gradient
        if isinstance(rule, Projecting):
            kept = rule.project(kept, state, param)
        if name not in self.held:
            self.held[name] = np.zeros(kept.shape, np.float32)
        total = self.held[name]
        if isinstance(kept, Factors):
            for rows, values in kept.parts():
                total[rows] += np.float32(part.share) * values
        else:
            total += np.float32(part.share) * kept
        if not part.last:
            return None
        del self.held[name]
        if isinstance(rule, Projecting) and total.shape != param.shape:
            return rule.update_projected(total, state, param)
        return rule.update(Whole(total) if total.ndim == 2 else total, state, param)
