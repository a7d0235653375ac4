"""Mains, hours of the day and heat: waited for before a run, looked at between two of its steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_train.memory.link import Link
from edge_train.power.heat import Throttling
from edge_train.power.when import When, check_known, parse_when
from edge_train.recipe import Recipe

_LOOK_SECONDS = 10.0  # between two looks of a run; unplugging may cost that much battery
_WAIT_SECONDS = 20.0  # between two looks while nothing is done


def wait_until_allowed(recipe: Recipe, say: Callable[[str], None], link: Link) -> None:
    """Return when `--when` lets a run train; nothing of it is loaded meanwhile.

    The time that is waited is no part of `--time`.

    Raises:
      InputError: this system does not tell of its power.
    """
    if recipe.when is None:
        return
    when, began = parse_when(recipe.when), time.monotonic()
    check_known(when)
    if objection := when.objection():
        say(f"waiting to train: {objection}")
        while when.objection():
            time.sleep(_WAIT_SECONDS)
        say("going on")
    if link.began is not None:
        link.began += time.monotonic() - began


@dataclass
class Conditions:
    """What a run looks at now and then, between two steps.

    Attributes:
      when: it may train; None: always.
    """

    when: When | None
    heat: Throttling = field(default_factory=Throttling)
    _next: float = 0.0

    def objection(self) -> tuple[str, str]:
        """Return why a run has to stop, and what is worth a line; empty where there is nothing."""
        if time.monotonic() < self._next:
            return "", ""
        self._next = time.monotonic() + _LOOK_SECONDS
        objection = self.when.objection() if self.when is not None else None
        return objection or "", self.heat.news() or ""


def conditions_of(recipe: Recipe) -> Conditions:
    """Return what a run of a recipe looks at."""
    return Conditions(parse_when(recipe.when) if recipe.when is not None else None)
