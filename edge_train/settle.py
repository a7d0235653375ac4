"""When to stop: the loss on the fixed evaluation batch no longer falls."""

from collections.abc import Sequence


def settled(losses: Sequence[float], patience: int, tolerance: float = 0.02) -> bool:
    """Return whether the last `patience` evaluations brought nothing worth their time.

    Worth it is a new best that adds at least `tolerance` of all improvement so far. The evaluation
    batch never changes (same photos, latents, noise, timesteps), so the curve is smooth enough for
    this; the training loss is not.

    Args:
      losses: every evaluation in order, the one before training first.
      patience: evaluations to wait; 0 never stops.

    >>> settled([1.0, 0.5, 0.499, 0.5, 0.498], patience=3)
    True
    >>> settled([1.0, 0.8, 0.6, 0.4, 0.2], patience=3)
    False
    """
    if patience == 0 or len(losses) <= patience + 1:
        return False
    before, after = min(losses[:-patience]), min(losses[-patience:])
    return before - after < tolerance * (losses[0] - min(before, after))
