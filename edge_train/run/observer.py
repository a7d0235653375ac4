"""What a run says while it goes: one progress line for people, or JSON lines for programs."""

import json
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol, TextIO

from edge_train.protocols import StepRecord
from edge_train.units import format_bytes, format_seconds

_TERMINAL_SECONDS = 0.2  # between two drawings; faster is flicker
_FILE_SECONDS = 10.0  # between two lines in a file or pipe; a night of training stays readable
_RECENT_STEPS = 20  # the pace is their median: one slow step does not move it
_FALLBACK_COLUMNS = 80

Best = tuple[int, float]  # (steps taken, evaluation loss)


class Bar:
    """A line like `Steps: 52%| 448/864 [09:57<15:29, 2.23s/it, loss=0.253] mem 1.42/4.00 GB ...`.

    On a terminal the line is rewritten in place, clipped to the terminal's width; elsewhere a full
    line appears now and then. A reader that goes away does not stop the run.

    Args:
      stream: where to write; standard error if not given.
      clock: seconds that never run backward.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._terminal = self._stream.isatty()
        self._pause = _TERMINAL_SECONDS if self._terminal else _FILE_SECONDS
        self._began = self._drawn = clock()
        self._width = 0  # characters of the unfinished line on the terminal
        self._line = ""  # the newest line; drawn or not
        self._current = True  # whether it was drawn
        self._steps = 0
        self._cap_bytes: int | None = None
        self._loss: float | None = None
        self._eval: float | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Note that training begins at `first_step` of `steps`."""
        self._steps, self._cap_bytes = steps, cap_bytes
        self._began = self._clock()
        self._drawn = self._began - self._pause  # the first step shows at once
        if first_step:
            self.said(f"going on at step {first_step} of {steps}")

    def stepped(self, record: StepRecord, best: Best | None) -> None:
        """Count a step; draw the line if the last drawing is old enough."""
        self._recent.append(record.seconds)
        self._loss = record.loss if record.loss is not None else self._loss
        self._eval = record.eval if record.eval is not None else self._eval
        now = self._clock()
        self._line, self._current = self._compose(record, best, now - self._began), False
        if now - self._drawn >= self._pause:
            self._draw()
            self._drawn = now

    def said(self, text: str) -> None:
        """Write a message on a line of its own."""
        self._write(f"{self._erase()}{text}\n")
        self._current = self._current and not self._terminal

    def ended(self, status: str) -> None:
        """Draw the last line, whatever the clock says, and the status."""
        if not self._current:
            self._draw()
        if self._width:
            self._write("\n")
            self._width = 0
        self._write(f"{status} after {format_seconds(self._clock() - self._began)}\n")

    def _compose(self, record: StepRecord, best: Best | None, elapsed: float) -> str:
        done, pace = record.step + 1, statistics.median(self._recent)
        left = max(self._steps - done, 0) * pace
        share = 100 * done // self._steps if self._steps else 0
        loss = "" if self._loss is None else f", loss={self._loss:.3f}"
        times = f"{clock_time(elapsed)}<{clock_time(left)}, {format_pace(pace)}"
        parts = [
            f"Steps: {share:3d}%| {done}/{self._steps} [{times}{loss}]",
            f"mem {memory(record.resident_bytes, self._cap_bytes)}",
        ]
        if self._eval is not None:
            mark = f" (best {best[1]:.4f} @ {best[0]})" if best else ""
            parts.append(f" eval {self._eval:.4f}{mark}")
        return " ".join(parts)

    def _draw(self) -> None:
        self._current = True
        if not self._terminal:
            self._write(f"{self._line}\n")
            return
        line = self._line[: columns(self._stream) - 1]  # the last column would wrap
        self._write(f"\r{line}{' ' * (self._width - len(line))}")
        self._width = len(line)

    def _erase(self) -> str:
        blank, self._width = f"\r{' ' * self._width}\r" if self._width else "", 0
        return blank

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


class JsonEvents:
    """One JSON object a line for each event; every object has the key `event`.

    Args:
      stream: where to write; standard output if not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Write the event `started`."""
        self._write(event="started", first_step=first_step, steps=steps, cap_bytes=cap_bytes)

    def stepped(self, record: StepRecord, best: Best | None) -> None:
        """Write the event `step`: the record without its scalars, and the best evaluation."""
        values = asdict(record)
        del values["scalars"]
        found = None if best is None else {"step": best[0], "eval": best[1]}
        self._write(event="step", **values, best=found)

    def said(self, text: str) -> None:
        """Write the event `message`."""
        self._write(event="message", text=text)

    def ended(self, status: str) -> None:
        """Write the event `ended`."""
        self._write(event="ended", status=status)

    def _write(self, **values: Any) -> None:
        with suppress(OSError):
            self._stream.write(json.dumps(values) + "\n")
            self._stream.flush()


def clock_time(seconds: float) -> str:
    """Return a duration the way a clock shows it.

    >>> clock_time(597), clock_time(7384)
    ('09:57', '2:03:04')
    """
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute:02d}:{second:02d}"


def format_pace(seconds: float) -> str:
    """Return seconds per step, or steps per second where that is the larger number.

    >>> format_pace(2.234), format_pace(0.05), format_pace(0.0)
    ('2.23s/it', '20.00it/s', '0.00s/it')
    """
    return f"{1 / seconds:.2f}it/s" if 0 < seconds < 1 else f"{seconds:.2f}s/it"


def memory(held_bytes: int, cap_bytes: int | None) -> str:
    """Return what is held of what is allowed, in the cap's unit.

    >>> memory(1_420_000_000, 4_000_000_000), memory(812_000_000, None)
    ('1.42/4.00 GB', '812 MB')
    """
    if cap_bytes is None:
        return format_bytes(held_bytes)
    unit, name = (10**9, "GB") if cap_bytes >= 10**9 else (10**6, "MB")
    digits = 2 if unit == 10**9 else 0
    return f"{held_bytes / unit:.{digits}f}/{cap_bytes / unit:.{digits}f} {name}"


def columns(stream: TextIO) -> int:
    """Return the width of the terminal behind `stream`."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _FALLBACK_COLUMNS
    except OSError:
        return _FALLBACK_COLUMNS


class Observer(Protocol):
    """Whoever watches a run: a progress bar or a stream of JSON events."""

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Training begins at `first_step`."""

    def stepped(self, record: StepRecord, best: tuple[int, float] | None) -> None:
        """A step was taken."""

    def said(self, text: str) -> None:
        """Something worth a line happened."""

    def ended(self, status: str) -> None:
        """The run is over."""
