"""`--time`: how many steps fit, decided before the first one and again whenever the pace changes.

The clock is the monotonic one: setting the wall clock, as a machine without a battery for it does
after its start, changes nothing. What earlier processes of a run took is in its journal, and so is
every number of steps that was decided (kind `fit`), so a resumed run has the same schedule as far
as its steps are the same.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edge_train.errors import InputError
from edge_train.loop import Loop
from edge_train.methods import methods
from edge_train.protocols import StepRecord, Transform
from edge_train.recipe import Recipe
from edge_train.records.history import summary_of
from edge_train.run.pace import Prediction
from edge_train.tasks.job import FitsATime, Job
from edge_train.units import format_seconds

Record = Mapping[str, Any]

# What is left free for the end, beside what was measured: scores and pictures are counted in passes
# and not timed before; files are written several times; the process has to end.
# An end under load takes as much longer as a start did, of which this is a share.
_MARGIN, _SAVES, _REPORTS, _EDGE_SECONDS, _EDGE_SHARE = 1.5, 4, 2, 0.5, 0.02
_START_SHARE = 0.1
_LEAST_SHARE = 0.1  # of a processor, that this process counts on for the end
# The pace is that of the steps since the oldest of so many marks, a step or this share of the time
# apart; the longest of the newest steps counts when the end is near.
_MARKS, _MARK_SHARE, _NEWEST = 10, 0.01, 3
_FIRST_SECONDS, _LEAST_STEPS = 2.0, 3  # measured before the pace replaces what was counted
_CLEARLY = 0.1  # of the steps that are left: a smaller change is not worth a record
_QUIET = 0.05  # share of the time between two changes, but for the last
_CALM_END = 0.1  # share of the time at whose end a run is not made longer any more
_REPORT_STEPS, _REPORT_GROWTH = 1000, 10  # a report of so many more steps is timed again


@dataclass(frozen=True)
class Measured:
    """What was timed before the first step of a process, in seconds.

    Attributes:
      evaluation: of the fixed batch.
      after: of what is scored and drawn at the end, by its passes and the pace of an evaluation.
      save: of a checkpoint.
      spent: of this process until then: libraries, model and data.
      step: by its passes.
    """

    evaluation: float
    after: float
    save: float
    spent: float
    step: float

    def timed_again(self, evaluation: float) -> "Measured":
        """Return the same by one more evaluation that was timed, half of what is believed."""
        if evaluation <= 0:
            return self
        mean = (self.evaluation + evaluation) / 2
        return replace(self, evaluation=mean, after=self.after * mean / self.evaluation)

    @property
    def reserve(self) -> float:
        """What the end takes, without the report."""
        files = _SAVES * self.save + _START_SHARE * self.spent
        return self.evaluation + _MARGIN * self.after + files


def timed_by(work: Mapping[str, float], evaluation: float, save: float, spent: float) -> Measured:
    """Return what `work_of` counted, at the pace of an evaluation that was timed."""
    counted = Prediction(**work)
    factor = evaluation / counted.evaluation
    return Measured(evaluation, counted.after * factor, save, spent, counted.step * factor)


@dataclass
class Timing:
    """The steps of a run that ends by its time.

    Attributes:
      seconds: that the run may take, all its processes together.
      used: by processes before this one.
      began: when this process began, as `time.perf_counter` tells.
      asked: steps of the recipe: never more.
      found: what was timed, for the end.
      every: steps between two evaluations.
      updates: that were made.
      report: writes the report; timed, since it grows with the steps.
      rule: makes the update rule for these fits.
      say: tells people a line; tell: how many steps there will be.
    """

    seconds: float
    used: float
    began: float
    asked: int
    found: Measured
    every: int
    step: float
    fits: tuple[tuple[int, int], ...]
    updates: int
    report: Callable[[], object]
    rule: Callable[[tuple[tuple[int, int], ...]], Transform]
    say: Callable[[str], None]
    tell: Callable[[int], None]
    _marks: "deque[tuple[float, int]]" = field(default_factory=lambda: deque(maxlen=_MARKS))
    _newest: "deque[float]" = field(default_factory=lambda: deque(maxlen=_NEWEST))
    _last: float | None = None  # when a step was over
    _first: tuple[float, int] = (0.0, 0)  # when the first that counts was begun, after so many
    _fitted: float = 0.0  # seconds used when the steps were last fitted
    _reports: list[tuple[int, float]] = field(default_factory=list)  # (steps, seconds)
    _measured: bool = False  # whether steps were timed, and not only counted

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken."""
        return self.used + time.perf_counter() - self.began

    def left(self, steps: int) -> float:
        """Return the seconds for steps that are left after so many, the end taken off."""
        kept = (
            self.found.reserve + _REPORTS * self._report_seconds(steps) + _EDGE_SHARE * self.seconds
        )
        return self.seconds - self.elapsed - kept - _EDGE_SECONDS / self._share

    @property
    def _share(self) -> float:
        """Return the share of a processor that this process got: others may take the rest."""
        share = time.process_time() / max(time.perf_counter() - self.began, 1e-3)
        return min(max(share, _LEAST_SHARE), 1.0)

    def start(self, loop: Loop) -> None:
        """Decide how many steps fit, before the first one of this process."""
        self._time_report(loop.next_step)
        done, left = loop.next_step, self.left(loop.next_step)
        steps = max(self._fitting(done, left, self.step + self.found.evaluation / self.every), 1)
        self._change(loop, steps)
        time_left = format_seconds(max(self.seconds - self.elapsed, 0.0))
        if steps < self.asked:
            self.say(f"{steps} of {self.asked} steps fit into the time, {time_left} of it left")
        else:
            self.say(f"all {self.asked} steps fit into the time, {time_left} of it left")

    def stepped(self, loop: Loop, record: StepRecord) -> None:
        """Look at the clock after a step, and change how many there will be where it is needed."""
        now, done = time.perf_counter(), record.step + 1
        self.updates += record.skipped is None
        before, self._last = self._last, now
        if before is None:  # the first of a process reads code and makes buffers
            self._first = (now, done)
            self._marks.append(self._first)
            took = record.seconds
        else:
            took = now - before
            self._newest.append(took)
        if now - self._marks[-1][0] >= _MARK_SHARE * self.seconds:
            self._marks.append((now, done))
        if done < loop.steps and self._is_long_since_report(done):
            self._time_report(done)
        left, (since, steps) = self.left(done), self._marks[0]
        pace = (now - since) / (done - steps) if done > steps else took
        if record.eval is not None:
            plain = pace if done > steps else self.step
            self.found = self.found.timed_again(record.seconds - plain)
            left = self.left(done)
        longest = max([*self._newest, pace])
        if done >= loop.steps:  # the end that was planned, or much time is left after all
            if done < self.asked and left > max(2 * longest, _CALM_END * self.seconds):
                self._change(loop, self._fitting(done, left, pace))
        elif left < 2 * longest:  # the next one is the last, with an evaluation; or there is none
            self._change(loop, done + 1 if left >= longest else done)
        elif (steps := self._fitting(done, left, pace)) != loop.steps:
            self._consider(loop, done, steps)

    def is_over(self, loop: Loop, ending: str) -> bool:
        """Return whether a run ended because its time did, with fewer steps than were asked for."""
        return ending == "done" and loop.next_step < self.asked

    def sentence(self, loop: Loop) -> str:
        """Return what to say then."""
        return (
            f"its time of {format_seconds(self.seconds)} (--time) is over after {loop.next_step} "
            f"of {self.asked} steps"
        )

    def _consider(self, loop: Loop, done: int, steps: int) -> None:
        """Change the steps where they differ clearly, and not too often."""
        since = self.elapsed - self._fitted
        if not self._measured:
            began, first = self._first
            enough = time.perf_counter() - began >= min(_FIRST_SECONDS, _QUIET * self.seconds)
            self._measured = enough and done - first >= _LEAST_STEPS
            if self._measured:
                self._change(loop, steps)
            return
        few = abs(steps - loop.steps) <= 1 + _CLEARLY * (loop.steps - done)
        late = steps > loop.steps and self.elapsed > (1 - _CALM_END) * self.seconds
        if few or late or since < _QUIET * self.seconds:
            return
        self._change(loop, steps)

    def _fitting(self, done: int, left: float, step: float) -> int:
        """Return the steps that fit; evaluations between steps are part of their pace."""
        return min(done + math.floor(max(left, 0.0) / max(step, 1e-9)), max(self.asked, done))

    def _change(self, loop: Loop, steps: int) -> None:
        """Have the run be so many steps long from here on: first on record, then in its rule."""
        loop.journal.append(
            {
                "kind": "fit",
                "step": loop.next_step,
                "steps": steps,
                "used_seconds": self.elapsed,
                "reserve_seconds": self.found.reserve,
            }
        )
        loop.steps, self._fitted = steps, self.elapsed
        self.tell(steps)
        self.fits = (*self.fits, (self.updates, steps))
        loop.follow(self.rule(self.fits))

    def _is_long_since_report(self, done: int) -> bool:
        steps, seconds = self._reports[-1]
        grown = done >= max(steps + _REPORT_STEPS, _REPORT_GROWTH * steps)
        return grown and seconds < _EDGE_SHARE * (self.seconds - self.elapsed)

    def _time_report(self, done: int) -> None:
        if not self._reports:
            self.report()  # the first one of a process reads code
        began = time.perf_counter()
        self.report()
        self._reports.append((done, time.perf_counter() - began))

    def _report_seconds(self, steps: int) -> float:
        """Return what a report of so many steps takes: on a line through the last two."""
        *before, (done, seconds) = self._reports
        if not before or done <= before[-1][0]:
            return seconds
        grows = max(seconds - before[-1][1], 0.0) / (done - before[-1][0])
        return seconds + grows * max(steps - done, 0)


def check_first_step(seconds: float, found: Measured) -> None:
    """Refuse a time into which not one step fits, while nothing has begun.

    Raises:
      InputError: start, one step and the end take longer.
    """
    needs = found.spent + found.step + found.reserve + _EDGE_SECONDS
    if needs > (1 - _EDGE_SHARE) * seconds:
        raise InputError(
            f"no step fits into {format_seconds(seconds)} (--time): "
            f"{format_seconds(found.spent)} were spent until the first one, which takes "
            f"{found.step:.2g} s, and the end {found.reserve:.2g} s. Try --time "
            f"{math.ceil(2 * needs)}s."
        )


def check_time(recipe: Recipe, job: Job) -> None:
    """Refuse a time where the steps of a run cannot be fitted to it.

    Raises:
      InputError: the method shares all its steps out before the first, or the task has no way.
    """
    if recipe.time_seconds is None:
        return
    if reason := methods.get(job.recipe.method).keeps_length(job.recipe):
        raise InputError(f"--time is not for this run: {reason}; use --steps.")
    if not isinstance(job, FitsATime):
        raise InputError(f"--time is not for task {recipe.task!r}; use --steps.")


def used_before(records: Sequence[Record]) -> float:
    """Return the seconds that the processes of a journal took; more than they told of is not known.

    Of one that was killed the steps are counted, and what it had used when steps were last fitted.
    """
    if not records:
        return 0.0
    total = float(summary_of(records)["seconds_total"])
    noted = [float(r.get("used_seconds", 0.0)) for r in records if r["kind"] == "fit"]
    return max([total, *noted])
