"""Telling pictures of no known class: how near the nearest known picture is, and how near is far.

A picture is as near as the largest cosine of its centered features with those of a reference.
References are pictures of the classes. Each known picture is measured with itself left out, so the
threshold comes from features that were held out, although no picture is lost for it: two standard
deviations below the mean of these numbers.

Source: nearest neighbours of normalised features, as in Sun et al. (arXiv:2204.06507); leaving one
out in place of held-out pictures is ours, for classes of five photos.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.rng import Key

_OF_A_CLASS, _OF_ALL = 32, 4096  # references at most
_DEVIATIONS = 2.0  # about 2 % of known pictures are further away, if they are normal
_FLOOR = np.float32(1e-6)

Rows = Callable[[NDArray[np.int64]], Array]  # standardized features of pictures


@dataclass(frozen=True)
class Known:
    """What known pictures look like.

    Attributes:
      references: (references, width), of length one.
      threshold: cosine from which on a picture is of a known class.
    """

    references: Array
    threshold: float

    def nearness(self, features: Array, *, others: bool = False) -> Array:
        """Return the cosine of the nearest reference, (rows,).

        Args:
          others: than the picture itself, where that is a reference.
        """
        rows = unit(features)
        cosines = rows @ self.references.T
        if others:
            places = {one.tobytes(): place for place, one in enumerate(self.references)}
            for row, own in zip(rows, cosines, strict=True):
                if (place := places.get(row.tobytes())) is not None:
                    own[place] = -1
        found: Array = cosines.max(axis=1)
        return found


def references_of(classes: int) -> int:
    """Return how many references a class has at most.

    >>> references_of(10), references_of(1000)
    (32, 4)
    """
    return max(min(_OF_A_CLASS, _OF_ALL // classes), 1)


def unit(rows: Array) -> Array:
    """Return rows of length one."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    found: Array = rows / np.maximum(norms, _FLOOR)
    return found


def known_pictures(
    rows: Rows, pictures: NDArray[np.int64], labels: NDArray[np.int64], together: int
) -> Known:
    """Return references of each class, and the threshold that the pictures themselves say.

    Args:
      pictures: numbers of the known ones.
      labels: (pictures,) of these.
      together: that are read at once.
    """
    chosen, classes = [], np.unique(labels)
    most = references_of(len(classes))
    for label in classes:
        own = pictures[labels == label]
        order = Key(0, 0).generator("references", int(label)).permutation(len(own))
        chosen += sorted(own[order[:most]].tolist())
    numbers = np.array(chosen)
    references = unit(rows(numbers))
    classes, counts = np.unique(labels, return_counts=True)
    alone = set(classes[counts == 1].tolist())  # nothing of their class is left to be near to
    found = []
    for start in range(0, len(pictures), together):
        some = slice(start, start + together)
        cosines = unit(rows(pictures[some])) @ references.T
        cosines[pictures[some, None] == numbers] = -1
        kept = [label not in alone for label in labels[some].tolist()]
        found.append(cosines.max(axis=1)[kept])
    near = np.concatenate(found).astype(np.float64)
    if not len(near):
        return Known(references, -1.0)
    return Known(references, float(near.mean() - _DEVIATIONS * near.std()))
