"""The exact gradient with recomputation: the honest baseline."""

from dataclasses import dataclass

import numpy as np

from edge_train.errors import NonFinite
from edge_train.protocols import Apply, Batch, Estimate, GradientRuntime, Task
from edge_train.rng import Key


@dataclass(frozen=True)
class Backprop:
    """One forward and one backward pass per sample, activations recomputed block by block."""

    def estimate(
        self, runtime: GradientRuntime, task: Task, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Emit the gradient of the mean loss.

        Raises:
          NonFinite: a loss was not finite.
        """
        losses = runtime.backward(batch, apply)
        if not np.isfinite(losses).all():
            raise NonFinite("a loss of the step is not finite")
        return Estimate(
            loss=float(losses.astype(np.float64).mean()),
            scalars=(),
            forwards=losses.size,
            backwards=losses.size,
        )
