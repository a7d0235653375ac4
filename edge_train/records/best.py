"""Which evaluation of a run is its best one; read by who must stay small, so no NumPy here."""


def replaces_best(loss: float, best: float, first: float, margin: float) -> bool:
    """Return whether an evaluation is the best of a run, now that it is there.

    Args:
      best, first: evaluations before it.
      margin: share of the improvement from `first` to `best` that a later one may be short of.
        Methods whose result is a mean of the last iterates have one: it says more than the lowest
        of a few losses on a small batch.

    >>> replaces_best(0.6, 0.5, 1.0, 0.25), replaces_best(0.6, 0.5, 1.0, 0.0)
    (True, False)
    """
    return loss < best + margin * max(first - best, 0.0)
