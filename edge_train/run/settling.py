"""A run whose gradients have become noise ends soon: a short tail instead of the steps left.

Whether they are is read from the state of the update rule, which every process of a run has the
same after a step; that it was so is on record (kind `fit`, as of a run with a time), before the
first step that goes by it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_train.loop import Loop
from edge_train.protocols import SeesNoise, StepRecord, Transform
from edge_train.records.longer import length_of
from edge_train.run.observer import FollowsLength, Observer
from edge_train.run.timing import Timing

NOISE = "noise"  # why a record of kind `fit` is there; those of a time say nothing
_TAIL = 1 / 3  # of the steps so far: the last quarter of all, whose mean is the result


def tail(updates: int) -> int:
    """Return how many steps follow so many, once gradients are noise.

    >>> tail(60)
    20
    """
    return math.ceil(_TAIL * updates)


@dataclass
class Settling:
    """What looks, after every step, whether a run has learned what its gradients can tell.

    Attributes:
      rule: makes the update rule for these fits.
      observer: tells people.
      fits: of the run so far.
      updates: that were made.
      ends: after so many steps, if gradients were noise before; None: they were not.
      timing: of a run with a time, which shall not plan further than to the end.
    """

    rule: Callable[[tuple[tuple[int, int], ...]], Transform]
    observer: Observer
    fits: tuple[tuple[int, int], ...]
    updates: int
    ends: int | None
    timing: Timing | None

    def start(self, loop: Loop) -> None:
        """Go on as the journal has it, or as it would have if the last process had lived."""
        if self.ends is None:
            self._look(loop)
        else:
            self._end_after(loop, self.ends)

    def stepped(self, loop: Loop, record: StepRecord) -> None:
        """Look after a step."""
        self.updates += record.skipped is None
        if self.timing is not None:
            self.fits = self.timing.fits
        if self.ends is None:
            self._look(loop)

    def sentence(self, loop: Loop) -> str | None:
        """Return what to say of a run that ended because of it; None of one that did not."""
        if self.ends is None or loop.next_step < self.ends:
            return None
        return f"gradients were noise by then: ended after {loop.next_step} steps"

    def _look(self, loop: Loop) -> None:
        blocks = loop.runtime.parameters
        rules = ((loop.rules[name], loop.state[name]) for name in blocks)
        if not all(isinstance(rule, SeesNoise) and rule.is_noise(state) for rule, state in rules):
            return
        done = loop.next_step
        steps = done + tail(self.updates)
        if steps >= loop.steps:
            return
        loop.journal.append({"kind": "fit", "step": done, "steps": steps, "why": NOISE})
        self.fits = (*self.fits, (self.updates, steps))
        loop.follow(self.rule(self.fits))
        self.observer.said(
            f"gradients are noise since about step {done}; a short tail to step {steps}"
        )
        self._end_after(loop, steps)

    def _end_after(self, loop: Loop, steps: int) -> None:
        self.ends = loop.steps = steps
        if self.timing is not None:
            self.timing.fits, self.timing.asked = self.fits, min(self.timing.asked, steps)
        if isinstance(self.observer, FollowsLength):
            self.observer.fitted(steps)


def ends_by_noise(records: Sequence[Mapping[str, Any]]) -> int | None:
    """Return after how many steps the run of a journal ends since gradients were noise."""
    ends = [r["steps"] for r in records if r["kind"] == "fit" and r.get("why") == NOISE]
    return int(ends[-1]) if ends else None


def open_settling(
    records: Sequence[Mapping[str, Any]],
    rule: Callable[[tuple[tuple[int, int], ...]], Transform],
    observer: Observer,
    timing: Timing | None,
) -> Settling | None:
    """Return the settling of a run at the end of its journal.

    None where it was made longer: then somebody asked for these steps.
    """
    length = length_of(records)
    if length.spans:
        return None
    return Settling(
        rule=rule,
        observer=observer,
        fits=length.fits,
        updates=sum(r["kind"] == "step" and r.get("skipped") is None for r in records),
        ends=ends_by_noise(records),
        timing=timing,
    )
