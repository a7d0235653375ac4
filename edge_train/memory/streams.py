"""Standard output and error that are closed, full or unable to show a letter: no reason to stop.

Standard library only.
"""

from __future__ import annotations

import os
import select
import sys


def open_streams() -> None:
    """Let a closed stream lead nowhere, and write letters that it cannot show as escapes.

    A descriptor that stayed closed would be the next file that is opened, and prints of an engine
    would end in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _lead_nowhere(number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            new = open(number, "w", encoding="utf-8", closefd=False)
            setattr(sys, name, new)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def is_unread() -> bool:
    """Return whether standard output is a pipe whose reader is gone (`edge-train ... | head -1`).

    Asked of the system: a text larger than its buffer is dropped with the write that failed.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    except (OSError, ValueError):  # full; closed by the program itself
        return False
    if not hasattr(select, "poll"):  # Windows
        return False
    pipe = select.poll()
    pipe.register(1, 0)
    return any(event & select.POLLERR for _, event in pipe.poll(0))


def settle_streams() -> bool:
    """Write what is left to write; return whether standard output took it."""
    taken = True
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):  # full, or nobody reads it; closed by the program itself
            taken = taken and number != 1
            _lead_nowhere(number)  # the interpreter writes the rest when it ends
    return taken


def _lead_nowhere(number: int) -> None:
    file = os.open(os.devnull, os.O_RDWR)
    if file == number:
        os.set_inheritable(file, True)
    else:
        os.dup2(file, number)
        os.close(file)
