"""A bench that is told to end ends what it started first, so that all it made can be taken away.

A run in a group keeps that group from being removed; one whose bench is gone goes on alone.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TOLD = ("SIGINT", "SIGTERM", "SIGHUP")  # the last one is not there on Windows
_PATIENCE_SECONDS = 60.0  # a run takes its step to the end and saves; then it is ended


@contextmanager
def ends_what_it_started() -> Iterator[None]:
    """Within it a signal to end is passed to all children; once they are gone, it interrupts.

    Raises:
      KeyboardInterrupt: it was told to end, and nothing that it started is left.
    """
    numbers = [getattr(signal, name) for name in _TOLD if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, _end) for number in heard]
    try:
        yield
    finally:
        for number, handler in zip(heard, before, strict=True):
            signal.signal(number, handler)


def _end(*_: object) -> None:
    """Tell every child to end and wait until it has; whoever started it reads its status."""
    children = _children()
    for child in children:
        with suppress(OSError):
            os.kill(child, signal.SIGTERM)
    until = time.monotonic() + _PATIENCE_SECONDS
    while left := [child for child in children if _runs(child)]:
        if time.monotonic() > until:
            for child in left:
                with suppress(OSError):
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    raise KeyboardInterrupt


def _children() -> list[int]:
    """Return the process numbers of our children; none where the system does not list them."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that ended while we looked
            found += map(int, path.read_text().split())
    return found


def _runs(child: int) -> bool:
    """Return whether a child has not ended yet, and leave its status to whoever waits for it."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    return False
