"""How many threads pay for a model that is open: passes with one, two, four, timed.

Small layers are not worth sharing, and on a machine whose cores are busy each parallel part waits
for a thread that does not run: two threads can take ten times as long as one. Neither is known
beforehand, so it is measured, in about a second; of a large model one pass a count.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

# More threads must be this many times as fast as the best fewer; below that is noise, and waste.
CLEARLY = 1.2
_ENOUGH_SECONDS, _LONG_SECONDS = 0.1, 0.3  # of passes with one count: stop after; long is one pass
_PASSES = 5  # of short ones; their median counts, since a busy core is felt in most of them


@runtime_checkable
class Threaded(Protocol):
    """A runtime, or a job, that can be told how many threads to compute with."""

    def use_threads(self, count: int) -> None:
        """Compute with so many threads from now on."""
        ...


@dataclass(frozen=True)
class Threads:
    """What was measured.

    Attributes:
      count: of threads that pay.
      most: that were allowed.
      seconds: of a pass, by count; empty where there was nothing to choose.
    """

    count: int
    most: int
    seconds: Mapping[int, float]

    def sentence(self) -> str:
        """Return it as a line for people.

        >>> Threads(2, 4, {1: 0.7, 2: 0.5, 4: 0.5}).sentence()
        '2 threads, 1.4 times as fast as one (4: 1.4)'
        >>> Threads(1, 2, {1: 0.5, 2: 1.0}).sentence()
        '1 thread: 2 would be 0.5 times as fast'
        >>> Threads(1, 1, {}).sentence()
        '1 thread: there is one core to use'
        """
        if not self.seconds:
            return "1 thread: there is one core to use"
        times = {n: f"{self.seconds[1] / s:.2g}" for n, s in self.seconds.items()}
        *_, last = times
        if self.count == 1:
            return f"1 thread: {last} would be {times[last]} times as fast"
        more = "" if last == self.count else f" ({last}: {times[last]})"
        return f"{self.count} threads, {times[self.count]} times as fast as one{more}"

    def record(self) -> dict[str, Any]:
        """Return plain values for the journal."""
        return {
            "count": self.count,
            "most": self.most,
            "seconds": {str(count): seconds for count, seconds in self.seconds.items()},
        }


def choose(
    runtime: Threaded,
    one_pass: Callable[[], object],
    most: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Threads:
    """Return how many threads pay, at most `most`; the runtime uses them from then on.

    Counts double until more do not help clearly.

    Args:
      one_pass: one pass of what is trained.
      clock: seconds; another one in tests.
    """
    if most == 1:
        runtime.use_threads(1)
        return Threads(1, 1, {})
    seconds: dict[int, float] = {}
    best = last = 1
    for last in _counts(most):
        runtime.use_threads(last)
        seconds[last] = _pass_seconds(one_pass, clock, first=last == 1)
        if last > 1 and seconds[last] * CLEARLY > seconds[best]:
            break
        best = last
    if best != last:
        runtime.use_threads(best)
    return Threads(best, most, seconds)


def _counts(most: int) -> Iterator[int]:
    """Yield 1, 2, 4 and so on, and `most` at the end."""
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most


def _pass_seconds(one_pass: Callable[[], object], clock: Callable[[], float], first: bool) -> float:
    """Return the seconds of a pass, of several short ones the median.

    The first of all reads code and weights for the first time, and the first with each count makes
    its threads: they do not count, unless the latter takes long anyway.
    """
    found: list[float] = []
    skipped = False
    while sum(found) < _LONG_SECONDS and (len(found) < _PASSES or sum(found) < _ENOUGH_SECONDS):
        began = clock()
        one_pass()
        took = clock() - began
        if skipped or (took >= _LONG_SECONDS and not first):
            found.append(took)
        skipped = True
    return statistics.median(found)
