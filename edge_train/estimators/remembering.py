"""Gradients that are kept from the pass that measures them to the one that uses them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_train.arrays.types import Array, Batch
from edge_train.protocols import Apply, Estimate, Estimator, Objective, Share
from edge_train.rng import Key


@dataclass
class Remembering:
    """An estimator whose second estimate of a step takes no pass: it hands out the first one's.

    A clipped step needs the length of all gradients before the first one is used. Where all of
    them together are small (adapters), they are kept; else the loop takes the passes twice.

    Memory:
      The gradients of all blocks, in float32, between the two.
    """

    estimator: Estimator[Any]
    _of: Key | None = None
    _estimate: Estimate | None = None
    _gradients: dict[str, Array] = field(default_factory=dict)

    def estimate(
        self, runtime: Any, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Emit every block's gradient, whole.

        Raises:
          NonFinite: as of the estimator.
        """
        if self._of == key and self._estimate is not None:
            gradients, self._gradients, self._of = self._gradients, {}, None
            for name in list(gradients):
                apply(name, gradients.pop(name))
            return Estimate(self._estimate.loss, self._estimate.scalars, 0)
        self._gradients, self._of = {}, None
        self._estimate = self.estimator.estimate(runtime, task, batch, key, self._keep)
        for name, gradient in self._gradients.items():
            apply(name, gradient)
        self._of = key
        return self._estimate

    def _keep(self, name: str, gradient: Array | Share) -> None:
        """Add a gradient, or a part of one, to what is kept."""
        part: Any = gradient.gradient if isinstance(gradient, Share) else gradient
        if isinstance(gradient, Share):
            part = part * np.float32(gradient.share)
        if name in self._gradients:
            self._gradients[name] += part
        else:
            self._gradients[name] = part
