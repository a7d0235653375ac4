"""Ctrl-C and a polite kill: one end at every instant, with nothing left behind.

A `KeyboardInterrupt` can be lost in code that is being loaded, in a callback of an engine or for
want of memory. So none is raised: the handler itself undoes what is not finished and ends the
process. While a run trains, another handler takes its place, which saves first (`run/training.py`).
Standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress

from edge_train.errors import INTERRUPTED

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM)
WORDS = "edge-train: interrupted.\n"

_undo: list[Callable[[], object]] = []  # what would be left behind, the oldest first
_held = [False, False]  # whether the handler waits, and whether it was called meanwhile


def listen(status: int = INTERRUPTED, words: str = WORDS) -> None:
    """End this process at either signal from now on, also where they were ignored or blocked.

    Args:
      status: its exit status then.
      words: what it says then.
    """

    def end(*_: object) -> None:
        if _held[0]:
            _held[1] = True
            return
        ignore()
        for undo in reversed(_undo):
            with suppress(Exception):  # memory may have run out; the rest is undone all the same
                undo()
        with suppress(Exception):  # closed, full, or in the middle of a write
            sys.stdout.flush()
        with suppress(OSError):
            os.write(2, words.encode())
        os._exit(status)

    for number in STOPPING:
        signal.signal(number, end)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def ignore() -> None:
    """Let neither signal change how this process ends: its work is done, its status known."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Have something undone if the process is ended in this block; nothing is done at its end."""
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)


@contextmanager
def held_back() -> Iterator[None]:
    """Let an end wait until this block is over: what it makes can then be undone."""
    _held[0] = True
    try:
        yield
    finally:
        _held[0] = False
        if _held[1]:
            _held[1] = False
            signal.raise_signal(signal.SIGINT)
