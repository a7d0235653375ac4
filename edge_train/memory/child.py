"""Work in a forked process, whose imports and memory are never this one's."""

from __future__ import annotations

import os
import signal

from edge_train.process.interrupts import STOPPING

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(work: Callable[[], object], seconds: int = 0) -> tuple[int, str]:
    """Return how a forked process that does `work` ended, and what it wrote to its descriptor 1.

    Args:
      work: nothing that it raises is shown; the status is then 1.
      seconds: when it is ended, whatever it does; 0 never.

    Returns:
      The exit status (negative: the signal that ended it), and the output.
    """
    reading, writing = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # no handler of ours runs in it
    child = os.fork()
    if child == 0:
        try:
            for number in STOPPING:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            signal.alarm(seconds)
            os.dup2(writing, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(writing)
    output = b""
    while part := os.read(reading, 65_536):
        output += part
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output.decode(errors="replace")
