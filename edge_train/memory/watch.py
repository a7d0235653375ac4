"""A thread that looks at memory many times a second, keeps its history, and acts in time.

The guard compares the cap with the peak after every step; this sees what happens inside one. At
nine tenths of the cap it has something done (`reactions.py`), and it moves the wall: what the data
limit does not count is measured and taken off (`budget.py`).
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_train.memory.budget import LOADING, SPENT, STEADY, Slack, Weights, budget
from edge_train.memory.history import History
from edge_train.memory.machine import machine_shortage, memory_limits
from edge_train.memory.measure import (
    PAGE_BYTES,
    Counters,
    OwnCounters,
    code_bytes,
    has_counters,
    others_bytes,
)
from edge_train.memory.reactions import STILL_SECONDS, Look, Pages, Reactions
from edge_train.memory.wall import limit_data

if TYPE_CHECKING:
    from edge_train.memory.gpu import GpuMemory

_PERIOD_SECONDS = 0.01  # between looks near the cap; a look costs about 0.1 ms, mostly waking up
_CALM_SHARE = 0.75  # of the cap: below that it is far
_CALM_SECONDS = 0.02  # between looks far from the cap
_HURRIED_SECONDS = 0.002  # near the cap, while code is read, which no data limit can stop
_SLOW_SECONDS = 0.5  # between looks at other processes, the machine, and where file pages belong
_DRAIN_SECONDS = 5.0  # between two records of the history
_LEAST_MOVE_BYTES = 16 * PAGE_BYTES  # of the data limit; a system call for less is not worth it
# OpenBLAS maps two work buffers of 32 MiB for matrix products and leaves most of them untouched.
_IDLE_BYTES = 72_000_000


class Watch:
    """Measures, keeps and acts, from `start` to `stop`.

    Args:
      cap_bytes: what the process tree may hold; None only measures.
      supervisor: the parent process, whose bytes count too and whose end is ours.
      meminfo: where the machine says what is available.

    Attributes:
      short: why the run should save and stop: the machine itself has no memory left. Else empty.
      anon_peak_bytes: the most private memory that a look found.
      busy_seconds: processor time that watching took.
      gpu: asks the driver what is held on GPUs, where a run uses one; its samples are kept, too.
      give_up: what to do when libraries alone are about to exceed the cap: before `count_idle`, and
        inside `loading`.
    """

    def __init__(
        self,
        cap_bytes: int | None,
        *,
        supervisor: int | None = None,
        meminfo: Path = Path("/proc/meminfo"),
    ) -> None:
        self.cap_bytes: int | None = None
        self.short = ""
        self.anon_peak_bytes = 0
        self.busy_seconds = 0.0
        self.give_up: Callable[[int], None] | None = None
        self.gpu: GpuMemory | None = None
        self._supervisor, self._meminfo = supervisor, meminfo
        self._limits = memory_limits()  # of the container that we are in, if we are in one
        self._began = time.monotonic()
        self._history = History()
        self._next_drain = 0.0
        # the phase
        self._counted, self._loading, self._spent = False, True, False
        # what slow looks found
        self._next_slow = 0.0
        self._on_gpu: int | None = None  # bytes there, None where no GPU is used
        self._others = 0  # resident bytes of the rest of the tree
        self._libraries: int | None = None  # resident file bytes that are not mapped weights
        # what quick looks found
        self._most_files, self._files_grew = 0, 0.0  # file pages so far, and when that was
        self._idle = _IDLE_BYTES  # mapped, charged to the data limit, never touched
        self._unread = 0  # code of libraries that is not resident
        # the wall
        self._walled, self._limit = False, 0
        self._pages: Pages | None = None
        self._expected: Weights | None = None  # about to be mapped
        # the thread
        self._lock = threading.Lock()
        self._over = False
        self._counters = OwnCounters() if has_counters() else None
        self._reactions = Reactions(self._count, self._note)
        self._thread = threading.Thread(target=self._watch, name="memory watch", daemon=True)
        if cap_bytes is not None:
            self.enforce(cap_bytes)

    @property
    def wants_less(self) -> bool:
        """Whether calls of the model should be made smaller; whoever does that sets it back."""
        return self._reactions.wants_less

    @wants_less.setter
    def wants_less(self, wants_less: bool) -> None:
        self._reactions.wants_less = wants_less

    @property
    def released_bytes(self) -> int:
        """Mapped weights let go in all; every one of them was, or will be, read again."""
        return self._reactions.released_bytes

    def start(self) -> "Watch":
        """Begin to look; on systems without Linux's counters there is nothing to look at."""
        if self._counters is not None:
            self._thread.start()
        return self

    def stop(self) -> None:
        """Look a last time and end; the wall stays where it is."""
        self._over = True
        if self._thread.is_alive():
            self._thread.join()
        if self._counters is not None:
            self._counters.close()
            self._counters = None

    def enforce(self, cap_bytes: int, *, wall: bool = False) -> None:
        """Act before this cap; with `wall`, also move the data limit from now on."""
        with self._lock:
            self.cap_bytes, self._walled = cap_bytes, self._walled or wall
            if self._counters is not None:
                self._look()

    def count_idle(self) -> None:
        """Remember what is mapped but untouched now, right after the libraries were loaded.

        The data limit counts it; as long as it stays untouched, that much is added to the limit.
        Until this call the limit is higher by what it may be at most.
        """
        if self._counters is not None:
            with self._lock:
                now = self._count()
                self._idle, self._counted = min(max(now.data - now.anon, 0), _IDLE_BYTES), True
                self._loading = False

    @contextmanager
    def loading(self, engine: bool = True) -> Iterator[None]:
        """Keep more free than usual while an engine is loaded in here, or first used.

        No data limit stops file pages: libraries are mapped and relocated faster than anyone
        looks, and a first pass reads ten megabytes of code. Later little of it is new.

        Args:
          engine: there is one beside NumPy, which is loaded and was used when a worker starts.
        """
        if not engine:
            yield
            return
        with self._lock:
            self._loading = True
            if self.cap_bytes is not None and self._counters is not None:
                self._look()
        try:
            yield
        finally:
            self._loading = False

    def spend_reserve(self) -> None:
        """Let some room between data limit and cap be used: memory ran out, and words need some."""
        with self._lock:
            self._spent = True
            if self._walled and self._counters is not None:
                self._move_wall(self._count().files)

    def expect(self, mapped_bytes: int) -> None:
        """Keep room for weights that are about to be mapped, until `adopt`."""
        with self._lock:
            if self._counters is not None:
                files = self._count().files
                coming = Weights(mapped_bytes, files, resident=False)
                self._expected = coming if mapped_bytes else None
                if self.cap_bytes is not None:
                    self._look()

    def adopt(self, pages: Pages | None) -> None:
        """Release these mapped weights when memory is needed; None: they are gone."""
        with self._lock:
            self._pages, self._libraries, self._expected = pages, None, None
            self._reactions.adopt(pages)
            self._next_slow = 0.0

    def drain(self, step: int, *, last: bool = False) -> list[dict[str, Any]]:
        """Return what happened since the last call, as records of the journal.

        Nothing for a few seconds after a call that returned something, unless something happened.

        Args:
          step: the one in progress, for the record.
          last: nothing comes after this, so take the stretch that is not over, too.
        """
        now = time.monotonic()
        with self._lock:
            if now < self._next_drain and not (last or self._history.has_events):
                return []
            self._next_drain = now + _DRAIN_SECONDS
            return self._history.take_records(step, last)

    def note(self, text: str) -> None:
        """Put an event of the guard where `drain` finds it."""
        with self._lock:
            self._note(text)

    def _note(self, text: str) -> None:
        self._history.note(time.monotonic() - self._began, text)

    def _count(self) -> Counters:
        assert self._counters is not None
        return self._counters.read()

    def _watch(self) -> None:
        period = _PERIOD_SECONDS
        while not self._over:
            time.sleep(period)  # an event's wait would cost more than the look
            with self._lock:
                held = self._look()
            calm = self.cap_bytes is None or held < _CALM_SHARE * self.cap_bytes
            period = _CALM_SECONDS if calm else _PERIOD_SECONDS
            reading = time.monotonic() < self._files_grew + STILL_SECONDS
            if (self.give_up and not self._counted) or (reading and not calm):
                period = _HURRIED_SECONDS
        self.busy_seconds = time.thread_time()

    def _look(self) -> int:
        """Measure, keep, move the wall and react; return the bytes held by the process tree."""
        found, now = self._count(), time.monotonic()
        if now >= self._next_slow:
            self._next_slow = now + _SLOW_SECONDS
            self._look_around(found.files)
        held = found.resident + self._others
        self.anon_peak_bytes = max(self.anon_peak_bytes, found.anon)
        if found.files > self._most_files:
            self._most_files, self._files_grew = found.files, now
        self._history.add(now - self._began, held, found.anon, self._on_gpu)
        if self.cap_bytes is None:
            return held
        if self._counted:
            self._idle = min(self._idle, max(found.data - found.anon, 0))
        if self.give_up and self._loading and held > self.cap_bytes - LOADING.least_bytes:
            self.give_up(held)
        if self._walled:
            if held > _CALM_SHARE * self.cap_bytes:
                self._unread = max(code_bytes() - found.files, 0)
            self._move_wall(found.files)
        look = Look(now, held, self._others, found.files, self._libraries, self._files_grew)
        self._reactions.react(look, self.cap_bytes)
        return held

    def _look_around(self, files: int) -> None:
        """See to what changes slowly: the rest of the tree, the machine, who owns file pages."""
        if self._supervisor is not None and os.getppid() != self._supervisor:
            os.kill(os.getpid(), signal.SIGKILL)  # nobody is left to restart us or to be told
        self._others = others_bytes(self._supervisor)
        if self._pages is not None:
            resident = self._pages.resident_bytes()
            if resident is not None or self._libraries is None:
                self._libraries = max(files - (resident or 0), 0)
        self._on_gpu = self.gpu.sample() if self.gpu is not None else None
        self.short = self.short or machine_shortage(self._meminfo, self._limits)

    def _move_wall(self, files: int) -> None:
        """Set the data limit to what the cap leaves beside everything that it does not count."""
        assert self.cap_bytes is not None
        limit = budget(
            self.cap_bytes,
            others=self._others,
            files=files,
            idle=self._idle,
            unread=self._unread,
            weights=self._weights(),
            slack=self._slack(),
        )
        if abs(limit - self._limit) >= _LEAST_MOVE_BYTES:
            limit_data(limit)
            self._limit = limit

    def _weights(self) -> Weights | None:
        """Return the weights that need room among file pages."""
        if self._pages is not None and self._libraries is not None:
            return Weights(self._pages.bytes, self._libraries)
        return self._expected

    def _slack(self) -> Slack:
        if self._spent:
            return SPENT
        return LOADING if self._loading else STEADY
