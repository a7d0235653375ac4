"""The rate that suits a method, by what few short runs lose on held-out examples."""

from collections.abc import Callable

_MOST = 6  # rates that are tried for one method


def losses_by_rate(loss: Callable[[float], float], start: float) -> dict[float, float]:
    """Return the loss of a rate, its half and its double, and of more beyond the best.

    While the lowest loss is at an end, the next half or double is tried, up to six rates: so a
    method is not judged by a range that suits another one.

    >>> found = losses_by_rate(lambda rate: abs(rate - 7), 1)
    >>> sorted(found), best(found)
    ([0.5, 1, 2, 4, 8, 16], 8)
    """
    losses = {rate: loss(rate) for rate in (start, start / 2, 2 * start)}
    while len(losses) < _MOST:
        lowest = best(losses)
        if lowest not in (min(losses), max(losses)):
            break
        further = lowest / 2 if lowest == min(losses) else 2 * lowest
        losses[further] = loss(further)
    return losses


def best(losses: dict[float, float]) -> float:
    """Return the rate of the lowest loss."""
    return min(losses, key=lambda rate: losses[rate])


def words(losses: dict[float, float]) -> str:
    """Return the rate that was taken, and from what; an end was never left behind by choice.

    >>> words({0.001: 2.0, 0.002: 1.0, 0.004: 3.0})
    '0.002 of 0.001-0.004'
    """
    return f"{best(losses):g} of {min(losses):g}-{max(losses):g}"
