"""Which pictures are trained on, which choose the best step, and which are scored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.rng import Key

_SHARE = 0.2  # of the pictures of a class that are held out
_LEAST = 4  # pictures of a class from which on one is held out
_MOST = 1000  # pictures that are held out of all

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Numbers of pictures.

    Attributes:
      train: that are trained on.
      held_out: that the best step is chosen by; empty where no class has enough.
      test: that are scored at the end, from a folder of their own; empty where there is none.
    """

    train: Numbers
    held_out: Numbers
    test: Numbers

    @property
    def known(self) -> Numbers:
        """All but the test part."""
        return np.sort(np.concatenate([self.train, self.held_out]))


def split(labels: Numbers, test: NDArray[np.bool_], most: int | None) -> Split:
    """Return the split: a fifth of each class that has four pictures is held out, always the same.

    Args:
      labels: (pictures,) their classes.
      test: (pictures,) whether they are of the test part.
      most: that are held out; None: a fifth, at most 1000.
    """
    there = np.flatnonzero(~test)
    held: list[int] = []
    for label in np.unique(labels[there]):
        own = there[labels[there] == label]
        if len(own) >= _LEAST:
            # by its size alone: one more class changes nothing for the others
            order = Key(0, 0).generator("held out of a class").permutation(len(own))
            held += own[order[: max(round(_SHARE * len(own)), 1)]].tolist()
    limit = _MOST if most is None else most
    if len(held) > limit:
        order = Key(0, 0).generator("held out").permutation(len(held))
        held = [held[number] for number in order[:limit]]
    held_out = np.array(sorted(held), np.int64)
    return Split(np.setdiff1d(there, held_out), held_out, np.flatnonzero(test))
