"""The rounds of a fleet in their order: each has a number that server and devices make alike."""

from typing import NamedTuple

START = 0  # all agree on the first evaluation and the radius
NONE = 0xFFFFFFFF  # no round is open: training is over
_KINDS = 3  # of rounds a step: slopes, the evaluation after it, and that once more


class Round(NamedTuple):
    """What a number stands for: the step, and "slopes", "evaluation" or "start"."""

    step: int
    what: str


def slopes_of(step: int) -> int:
    """Return the round in which devices measure slopes of a step."""
    return 1 + _KINDS * step


def evaluation_after(step: int, again: bool = False) -> int:
    """Return the round of the evaluation after a step; `again`: after the step was rolled back."""
    return slopes_of(step) + (2 if again else 1)


def round_of(number: int) -> Round:
    """Return what a number stands for.

    >>> round_of(evaluation_after(7)), round_of(slopes_of(0)).step
    (Round(step=7, what='evaluation'), 0)
    """
    if number == START:
        return Round(0, "start")
    step, kind = divmod(number - 1, _KINDS)
    return Round(step, "slopes" if kind == 0 else "evaluation")
