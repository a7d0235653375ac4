"""How like an item pictures are, in a space of features: cosine, and the item's rank among many."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]  # (pictures, features)


@dataclass(frozen=True)
class Likeness:
    """What a set of pictures of one item scores.

    Attributes:
      cosine: mean over pictures and photos of the cosine between their features.
      rank: median over pictures of the true item's rank in the gallery; 1 is best.
      first: share of pictures whose nearest item is the true one.
      tenth: share of pictures with the true item among the ten nearest.
    """

    cosine: float
    rank: float
    first: float
    tenth: float


def likeness(pictures: Rows, photos: Rows, gallery: Rows, true: int) -> Likeness:
    """Return what pictures score.

    Args:
      pictures: of the learned token.
      photos: that it was learned from.
      gallery: one row an item, in the look of the pictures.
      true: the item's row in the gallery.

    Raises:
      ValueError: a number is not finite, a row has no length, or there is no such item.
    """
    placed = ranks(pictures, gallery, true)
    return Likeness(
        cosine=float(cosines(pictures, photos).mean()),
        rank=float(np.median(placed)),
        first=float((placed < 2).mean()),
        tenth=float((placed < 11).mean()),
    )


def cosines(left: Rows, right: Rows) -> NDArray[np.float64]:
    """Return the cosine of every row with every row, (left, right).

    Raises:
      ValueError: a number is not finite, or a row has no length.

    >>> cosines(np.array([[3.0, 0.0]]), np.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 5.0]])).tolist()
    [[1.0, -1.0, 0.0]]
    """
    product: NDArray[np.float64] = _unit(left) @ _unit(right).T
    return product


def ranks(pictures: Rows, gallery: Rows, true: int) -> NDArray[np.float64]:
    """Return the rank of item `true` for each picture, (pictures,): 1 if no item is nearer.

    Items that are as near as the true one share its place: with two others the rank is 2, the
    middle of 1 to 3, so that features which are all the same do not look like a hit.

    Raises:
      ValueError: as of `cosines`, or there is no such item.
    """
    if not 0 <= true < len(gallery):
        raise ValueError(f"item {true} of {len(gallery)}")
    near = cosines(pictures, gallery)
    own = near[:, true, None]
    # the same row twice gives the same cosine but for rounding of a product's sums
    same = np.isclose(near, own, rtol=0, atol=1e-12)
    nearer = (near > own) & ~same
    placed: NDArray[np.float64] = 1 + nearer.sum(axis=1) + (same.sum(axis=1) - 1) / 2
    return placed


def _unit(rows: Rows) -> NDArray[np.float64]:
    numbers = np.asarray(rows, np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers).all(axis=1)))
        raise ValueError(f"features of picture {row} are not finite")
    lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"features of picture {int(np.argmin(lengths))} are all zero")
    unit: NDArray[np.float64] = numbers / lengths
    return unit
