"""Which layers are trained for some steps: drawn without putting back, by given odds."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from edge_train.rng import Key


class LayerDraws:
    """A `BlockSchedule`: a few layers at a time, and all blocks that belong to none.

    A draw is a function of the seed and of how many came before it. The `count` layers with the
    largest log(odds) + Gumbel noise are those that drawing one after the other, without putting
    back, would give.

    Args:
      layer_of: the layer of a block, None for one that is always trained.
      log_odds: of every layer.
      count: layers at a time.
      every: steps of a draw.
      seed: of the run.

    Source: LISA (arXiv:2403.17919), OwLore (arXiv:2405.18380). Other than in the authors' code
    the state of a layer that rests is let go, so that memory does not grow from draw to draw, and
    one that returns begins with fresh moments and a fresh basis.
    """

    forgets = True

    def __init__(
        self,
        layer_of: Callable[[str], str | None],
        log_odds: Mapping[str, float],
        count: int,
        every: int,
        seed: int,
    ) -> None:
        self._layer_of, self._every, self._layers = layer_of, every, tuple(log_odds)

        @lru_cache(maxsize=2)
        def drawn(number: int) -> frozenset[str]:
            noise = Key(seed, number).generator("layers").gumbel(size=len(log_odds))
            order = np.argsort(-(np.array(list(log_odds.values())) + noise), kind="stable")
            names = list(log_odds)
            return frozenset(names[place] for place in order[:count])

        self.drawn = drawn

    def trains(self, step: int, name: str) -> bool:
        """Return whether a block is trained in a step."""
        layer = self._layer_of(name)
        return layer is None or layer in self.drawn(step // self._every)

    def never_trained(self, steps: int) -> list[str]:
        """Return the layers that no draw of so many steps takes, in their order."""
        left = set(self._layers)
        for number in range(-(-steps // self._every)):
            left -= self.drawn(number)
            if not left:
                break
        return [layer for layer in self._layers if layer in left]
