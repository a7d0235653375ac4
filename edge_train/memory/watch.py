"""A thread that looks at memory many times a second, keeps its history, and acts in time.

The guard compares the cap with the peak after every step; this sees what happens inside one. At
nine tenths of the cap it acts, cheapest first: pages of mapped weights are released, freed memory
goes back to the system, smaller calls are asked for. It also moves the wall: file-mapped bytes
(libraries, weights) are not charged to the data limit, so what is measured of them is taken off.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_train.memory.measure import give_back_memory, measure
from edge_train.memory.wall import limit_data
from edge_train.units import format_bytes

if TYPE_CHECKING:
    from edge_train.memory.gpu import GpuMemory

_PERIOD_SECONDS = 0.01  # between looks near the cap; a look costs about 0.1 ms, mostly waking up
_CALM = (0.02, 0.75)  # seconds between looks while less than this share of the cap is held
_HURRIED_SECONDS = 0.002  # near the cap, while code is read, which no data limit can stop
_STILL_SECONDS = 0.3  # without a new file page: then no code is being read
_SLOW_SECONDS = 0.5  # between looks at other processes, the machine, and where file pages belong
_LINE = 0.9  # share of the cap at which it acts
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
# Room between data limit and cap: counters of running threads lag, code is faulted in.
_SLACK = (1_500_000, 0.01)  # bytes, or this share of the cap if that is more
# While libraries load, with the interpreter's lock held, so that nobody looks for a while. With
# 4 MB, bench cap found 101 MB under a cap of 99 MB on a busy machine.
_MORE_SLACK = 6_500_000
# Beside the first, of mapped weights that the window below does not hold: with none, a lean float
# run held 131 MB under 129 MB.
_BEYOND = 2_500_000
_KEPT_BACK = 1_000_000  # when memory ran out: what was counted late must still fit
# More of it where libraries have much code that was not read yet: a first pass faults it in faster
# than we look, and the data limit does not count it. With torch (340 MB of it) 4 MB did not do.
_LIBRARY_ROOM = (1 / 16, 16_000_000)  # share of that code, bytes at most
# Mapped weights that may be resident when everything else is full: what is read between two looks.
_WINDOW = (16_000_000, 0.05, 64_000_000)  # at least, share of the cap, at most
_BUCKET_SECONDS = 0.1  # of the history, at first
_BUCKETS = 600  # a bucket grows to this part of the time passed, so a long run stays small
_DRAIN_SECONDS = 5.0  # between two records of the history
_TRIM_SECONDS = 2.0  # between two times that freed memory is given back
# The machine is short of memory below this: share of all, at least, at most.
_SHORT = (0.02, 32_000_000, 256_000_000)
# OpenBLAS maps two work buffers of 32 MiB for matrix products and leaves most of them untouched.
_IDLE_BYTES = 72_000_000


class Pages(Protocol):
    """Mapped weights: `runtimes/mapped_weights.py`."""

    bytes: int

    def release(self, keep_bytes: int = 0) -> None:
        """Let go of resident pages behind the first `keep_bytes`."""

    def resident_bytes(self) -> int | None:
        """Return how much of them is resident in this process, None where nobody knows."""


class Watch:
    """Measures, keeps and acts, from `start` to `stop`.

    Args:
      cap_bytes: what the process tree may hold; None only measures.
      supervisor: the parent process, whose bytes count too and whose end is ours.
      meminfo: where the machine says what is available.

    Attributes:
      wants_less: the line was passed with nothing left to release; whoever runs the model should
        make its calls smaller and set this back.
      short: why the run should save and stop: the machine itself has no memory left. Else empty.
      released_bytes: mapped weights let go in all; every one of them was, or will be, read again.
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
        self.wants_less = False
        self.short = ""
        self.released_bytes = 0
        self.anon_peak_bytes = 0
        self.busy_seconds = 0.0
        self.give_up: Callable[[int], None] | None = None
        self.gpu: GpuMemory | None = None
        self._supervisor, self._meminfo = supervisor, meminfo
        self._began = time.monotonic()
        self._on_gpu: int | None = None  # bytes there, None where no GPU is used
        self._others = 0  # resident bytes of the rest of the tree
        self._libraries: int | None = None  # resident file bytes that are not mapped weights
        self._idle = _IDLE_BYTES  # mapped, charged to the data limit, never touched
        self._counted, self._loading = False, True
        self._slack, self._library_room = _SLACK, _LIBRARY_ROOM
        self._files, self._files_grew = 0, 0.0  # the most file pages so far, and when that was
        self._unread = 0  # code of libraries that is not resident
        self._pages: Pages | None = None
        self._expected = self._files_before = 0  # weights to be mapped, file pages without them
        self._kept = 0  # head of the weights that stays
        self._walled = False
        self._limit = 0
        self._history = _History()
        self._events: list[tuple[float, str]] = []
        self._said: set[str] = set()
        self._next_slow = self._next_trim = self._next_drain = 0.0
        self._lock = threading.Lock()
        self._over = False
        self._statm: int | None = None
        if sys.platform == "linux":
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="memory watch", daemon=True)
        if cap_bytes is not None:
            self.enforce(cap_bytes)

    def start(self) -> "Watch":
        """Begin to look; on systems without Linux's counters there is nothing to look at."""
        if self._statm is not None:
            self._thread.start()
        return self

    def stop(self) -> None:
        """Look a last time and end; the wall stays where it is."""
        self._over = True
        if self._thread.is_alive():
            self._thread.join()
        if self._statm is not None:
            os.close(self._statm)
            self._statm = None

    def enforce(self, cap_bytes: int, *, wall: bool = False) -> None:
        """Act before this cap; with `wall`, also move the data limit from now on."""
        with self._lock:
            self.cap_bytes, self._walled = cap_bytes, self._walled or wall
            if self._statm is not None:
                self._look()

    def count_idle(self) -> None:
        """Remember what is mapped but untouched now, right after the libraries were loaded.

        The data limit counts it; as long as it stays untouched, that much is added to the limit.
        Until this call the limit is higher by what it may be at most.
        """
        if self._statm is not None:
            with self._lock:
                _, _, anon, data = self._counters()
                self._idle, self._counted = min(max(data - anon, 0), _IDLE_BYTES), True
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
            if self.cap_bytes is not None and self._statm is not None:
                self._look()
        try:
            yield
        finally:
            self._loading = False

    def spend_reserve(self) -> None:
        """Let some room between data limit and cap be used: memory ran out, and words need some."""
        with self._lock:
            self._slack, self._library_room = (_KEPT_BACK, 0.0), (0.0, 0)
            if self._walled and self._statm is not None:
                self._move_wall(self._counters()[1])

    def expect(self, mapped_bytes: int) -> None:
        """Keep room for weights that are about to be mapped, until `adopt`."""
        with self._lock:
            if self._statm is not None:
                self._expected, self._files_before = mapped_bytes, self._counters()[1]
                if self.cap_bytes is not None:
                    self._look()

    def adopt(self, pages: Pages | None) -> None:
        """Release these mapped weights when memory is needed; None: they are gone."""
        with self._lock:
            self._pages, self._libraries, self._expected = pages, None, 0
            self._kept = pages.bytes if pages is not None else 0
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
            if now < self._next_drain and not (last or self._events):
                return []
            self._next_drain = now + _DRAIN_SECONDS
            events, self._events = self._events, []
            history = self._history.take(last)
        records: list[dict[str, Any]] = [
            {"kind": "event", "step": step, "text": text, "seconds": round(seconds, 2)}
            for seconds, text in events
        ]
        return [*records, {"kind": "memory", "step": step, **history}] if history else records

    def note(self, text: str) -> None:
        """Put an event of the guard where `drain` finds it."""
        with self._lock:
            self._events.append((time.monotonic() - self._began, text))

    def _watch(self) -> None:
        period = _PERIOD_SECONDS
        while not self._over:
            time.sleep(period)  # an event's wait would cost more than the look
            with self._lock:
                held = self._look()
            calm = self.cap_bytes is None or held < _CALM[1] * self.cap_bytes
            period = _CALM[0] if calm else _PERIOD_SECONDS
            reading = time.monotonic() < self._files_grew + _STILL_SECONDS
            if (self.give_up and not self._counted) or (reading and not calm):
                period = _HURRIED_SECONDS
        self.busy_seconds = time.thread_time()

    def _counters(self) -> tuple[int, int, int, int]:
        """Return resident, file-mapped, anonymous and private writable bytes of this process."""
        assert self._statm is not None
        words = os.pread(self._statm, 128, 0).split()
        resident, files = int(words[1]) * _PAGE, int(words[2]) * _PAGE
        return resident, files, resident - files, int(words[5]) * _PAGE

    def _look(self) -> int:
        resident, files, anon, data = self._counters()
        now = time.monotonic()
        if now >= self._next_slow:
            self._next_slow = now + _SLOW_SECONDS
            self._look_around(files)
        held = resident + self._others
        self.anon_peak_bytes = max(self.anon_peak_bytes, anon)
        if files > self._files:
            self._files, self._files_grew = files, now
        self._history.add(now - self._began, held, anon, self._on_gpu)
        if self.cap_bytes is None:
            return held
        if self._counted:
            self._idle = min(self._idle, max(data - anon, 0))
        if self.give_up and self._loading and held > self.cap_bytes - _MORE_SLACK:
            self.give_up(held)
        if self._walled:
            if held > _CALM[1] * self.cap_bytes:
                self._unread = max(_code_bytes() - files, 0)
            self._move_wall(files)
        if held > _LINE * self.cap_bytes:
            self._act(now, held, files)
        return held

    def _look_around(self, files: int) -> None:
        """See to what changes slowly: the rest of the tree, the machine, who owns file pages."""
        if self._supervisor is not None and os.getppid() != self._supervisor:
            os.kill(os.getpid(), signal.SIGKILL)  # nobody is left to restart us or to be told
        whole = measure(self._supervisor).resident_bytes
        self._others = max(whole - measure_alone(), 0)
        if self._pages is not None:
            resident = self._pages.resident_bytes()
            if resident is not None or self._libraries is None:
                self._libraries = max(files - (resident or 0), 0)
        self._on_gpu = self.gpu.sample() if self.gpu is not None else None
        self._ask_machine()

    def _move_wall(self, files: int) -> None:
        """Set the data limit to what the cap leaves beside everything that it does not count."""
        assert self.cap_bytes is not None
        window = _between(self.cap_bytes, _WINDOW)
        mapped = self._expected
        fixed = max(files, self._files_before + min(mapped, window) if mapped else 0)
        if self._pages is not None and self._libraries is not None:
            mapped = self._pages.bytes
            # they can all be read between two looks, so their room is taken off from the start
            fixed = self._libraries + min(mapped, window)
            fixed = max(fixed, min(files, self._libraries + window))
        share, most = self._library_room
        unread = int(min(share * self._unread, most))
        least = self._slack[0]
        if self._slack == _SLACK:
            beyond = min(max(mapped - window, 0), _BEYOND)
            least = _MORE_SLACK if self._loading else least + beyond
        slack = max(least, int(self._slack[1] * self.cap_bytes), unread)
        limit = self.cap_bytes - self._others - fixed - slack + self._idle
        if abs(limit - self._limit) >= _PAGE * 16:
            limit_data(limit)
            self._limit = limit

    def _act(self, now: float, held: int, files: int) -> None:
        assert self.cap_bytes is not None
        over = held - int(_LINE * self.cap_bytes)
        if self._pages is not None:
            mapped = files - (self._libraries or 0)
            window = _between(self.cap_bytes, _WINDOW)
            self._kept = min(self._kept, max(mapped - over - window, 0))
            if mapped > min(self._kept + window // 4, self._pages.bytes):
                self._pages.release(self._kept)
                _, left, _, _ = self._counters()
                self.released_bytes += max(files - left, 0)
                self._say("release", held, "weights are released and read again from their file")
                over -= files - left
        # takes many milliseconds in which nobody looks, so never while code is being read
        if over > 0 and now >= max(self._next_trim, self._files_grew + _STILL_SECONDS):
            self._next_trim = now + _TRIM_SECONDS
            give_back_memory()
            resident, _, _, _ = self._counters()
            given = held - self._others - resident
            over -= given
            if given > 0:
                self._say("trim", held, "freed memory was given back to the system")
        if over > 0 and not self.wants_less:
            self.wants_less = True

    def _say(self, kind: str, held: int, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            cap = format_bytes(self.cap_bytes or 0)
            words = f"memory: {format_bytes(held)} of {cap} held; {text}"
            self._events.append((time.monotonic() - self._began, words))

    def _ask_machine(self) -> None:
        if self.short:
            return
        try:
            lines = self._meminfo.read_text().splitlines()
            found = {name: int(rest.split()[0]) * 1024 for name, rest in map(_pair, lines)}
            available, total = found["MemAvailable"], found["MemTotal"]
        except (OSError, KeyError, ValueError, IndexError):
            return
        least = int(min(max(_SHORT[0] * total, _SHORT[1]), _SHORT[2]))
        if available < least:
            self.short = (
                f"the machine has only {format_bytes(available)} of memory left, taken by other "
                "programs"
            )


class _History:
    """The most that was held in each stretch of time; stretches grow with the time passed."""

    def __init__(self) -> None:
        self._end = 0.0
        self._points: list[tuple[float, int, int, int]] = []
        self._gpu = False

    def add(self, seconds: float, held: int, anon: int, gpu: int | None = None) -> None:
        self._gpu = self._gpu or gpu is not None
        if seconds >= self._end or not self._points:
            self._end = seconds + max(_BUCKET_SECONDS, seconds / _BUCKETS)
            self._points.append((seconds, held, anon, gpu or 0))
        else:
            first, most, most_anon, most_gpu = self._points[-1]
            most_gpu = max(most_gpu, gpu or 0)
            self._points[-1] = (first, max(most, held), max(most_anon, anon), most_gpu)

    def take(self, last: bool) -> dict[str, list[Any]]:
        """Return the closed stretches (with `last`, all), each with its start; forget them."""
        closed = self._points if last else self._points[:-1]
        self._points = self._points[len(closed) :]
        if not closed:
            return {}
        seconds, held, anon, gpu = zip(*closed, strict=True)
        return {
            "seconds": [round(s, 2) for s in seconds],
            "held_bytes": list(held),
            "anon_bytes": list(anon),
            **({"gpu_bytes": list(gpu)} if self._gpu else {}),
        }


def measure_alone() -> int:
    """Return the resident bytes of this process only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _code_bytes() -> int:
    """Return the bytes of code that this process has mapped, resident or not."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmExe", "VmLib")))


def _between(cap_bytes: int, bounds: tuple[int, float, int]) -> int:
    least, share, most = bounds
    return int(min(max(least, share * cap_bytes), most))


def _pair(line: str) -> tuple[str, str]:
    name, _, rest = line.partition(":")
    return name, rest
