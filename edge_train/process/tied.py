"""A process that stops politely when the program that started it is gone. Standard library only.

Not the kernel's signal at a parent's death: that comes when the *thread* ends which started the
process, and a server's threads come and go. The program holds one end of a pipe instead; however
it ends, the kernel closes that end, and a signal arrives here. Only Linux can do that; elsewhere
the process goes on without its program, as far as its run is long.
"""

import fcntl
import os
import select
import signal

_AT_ONCE = 0  # milliseconds


def tie(line: int) -> None:
    """Have this process sent SIGTERM when nobody holds the other end of a pipe any more."""
    if not hasattr(fcntl, "F_SETSIG"):
        return
    fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)
    gone = select.poll()
    gone.register(line, select.POLLIN)
    if gone.poll(_AT_ONCE):  # before we asked
        signal.raise_signal(signal.SIGTERM)
