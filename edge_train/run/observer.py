"""What a run says while it goes: one progress line for people, or JSON lines for programs."""

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

from tqdm import tqdm

from edge_train.protocols import StepRecord
from edge_train.units import format_bytes, format_seconds

_TERMINAL_SECONDS = 0.2  # between two drawings; faster is flicker
_SMOOTHING = 0.1  # of the pace: one slow step moves the time left little
_FILE_SECONDS = 10.0  # between two lines in a file or pipe; a night of training stays readable

Best = tuple[int, float]  # (steps taken, evaluation loss)


class Bar:
    """A line like `Steps: 52%|#####     | 448/864 [09:57<15:29, 2.23s/it, loss=0.253] mem ...`.

    The line is tqdm's. On a terminal it is rewritten in place, in the terminal's width; elsewhere a
    full line appears now and then. A reader that goes away does not stop the run.

    Args:
      stream: where to write; standard error if not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = _Quiet(stream or sys.stderr)
        self._line: _Line | None = None
        self._began = time.monotonic()
        self._cap_bytes: int | None = None
        self._loss = self._eval = ""

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Note that training begins at `first_step` of `steps`."""
        self._cap_bytes, self._began = cap_bytes, time.monotonic()
        if first_step:
            self.said(f"going on at step {first_step} of {steps}")
        self._line = _Line(self._stream, first_step, steps)

    def stepped(self, record: StepRecord, best: Best | None) -> None:
        """Count a step; draw the line if the last drawing is old enough."""
        assert self._line is not None
        if record.loss is not None:
            self._loss = f", loss={record.loss:.3f}"
        if record.eval is not None:
            mark = f" (best {best[1]:.4f} @ {best[0]})" if best else ""
            self._eval = f"  eval {record.eval:.4f}{mark}"
        held = memory(record.resident_bytes, self._cap_bytes)
        self._line.stepped(record.step + 1, self._loss, f" mem {held}{self._eval}")

    def fitted(self, steps: int) -> None:
        """Draw the line for another number of steps from now on."""
        if self._line is not None:
            self._line.total = steps

    def said(self, text: str) -> None:
        """Write a message on a line of its own."""
        if self._line is not None:
            self._line.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()
        if self._line is not None:
            self._line.draw_again()

    def ended(self, status: str) -> None:
        """Draw the last line, whatever the clock says, and the status."""
        if self._line is not None:
            self._line.end()
            self._line = None
        self.said(f"{status} after {format_seconds(time.monotonic() - self._began)}")


class _Quiet:
    """A stream whose reader may go away; the rest of it is that of the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, if anybody reads."""
        with suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, if anybody reads."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Line(tqdm):  # type: ignore[misc] # of steps that are counted from outside
    """tqdm's line, with no thread that watches it, and full lines where there is no terminal."""

    monitor_interval = 0

    def __init__(self, stream: _Quiet, first_step: int, steps: int) -> None:
        self._is_terminal = bool(stream.isatty())
        self._inside = self._behind = ""  # the brackets, and after them
        self._first = self._shown = first_step
        super().__init__(
            total=steps,
            initial=first_step,
            file=stream,
            desc="Steps",
            dynamic_ncols=self._is_terminal,
            mininterval=_TERMINAL_SECONDS if self._is_terminal else _FILE_SECONDS,
            miniters=1,
            smoothing=_SMOOTHING,
            gui=not self._is_terminal,  # only `display` below draws then
        )

    def stepped(self, steps: int, inside: str, behind: str) -> None:
        """Count up to `steps`; draw the first of them, and others when it is time."""
        self._inside, self._behind = inside, behind
        self.update(steps - self.n)
        if self._shown == self._first:
            self.refresh()

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the line is made of."""
        bar = "{bar:10}|" if self._is_terminal else ""
        shape = (
            f"{{desc}}: {{percentage:3.0f}}%|{bar} {{n_fmt}}/{{total_fmt}} "
            f"[{{elapsed}}<{{remaining}}, {{rate_fmt}}{self._inside}]{self._behind}"
        )
        return {**super().format_dict, "bar_format": shape}

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the line where it stands or, without a terminal, as the next one; none twice."""
        if self.n == self._first:
            return True
        if self._is_terminal:
            super().display(msg, pos)
        elif self._shown != self.n:
            self.fp.write(f"{self}\n")
            self.fp.flush()
        self._shown = self.n
        return True

    def clear(self, nolock: bool = False) -> None:
        """Make room for a message."""
        if self._is_terminal:
            super().clear(nolock)

    def draw_again(self) -> None:
        """Draw the line below a message."""
        if self._is_terminal:
            self.refresh()

    def end(self) -> None:
        """Draw the line a last time, and leave it."""
        if self._is_terminal:
            self.leave = self.n > self._first
        else:
            self.refresh()
        self.close()


_Line.set_lock(threading.RLock())  # one process draws; the default asks the system for semaphores


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

    def fitted(self, steps: int) -> None:
        """Write the event `fitted`."""
        self._write(event="fitted", steps=steps)

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


@runtime_checkable
class Placed(Protocol):
    """An observer that keeps files of its own in the run folder."""

    def placed(self, folder: Path, first_step: int, rate: Callable[[int], float | None]) -> None:
        """The folder is there; `rate` tells the learning rate of a step. Comes before `started`."""


@runtime_checkable
class FollowsLength(Protocol):
    """An observer that shows of how many steps a run is, which a time or noise may change."""

    def fitted(self, steps: int) -> None:
        """So many steps the run is going to have."""
