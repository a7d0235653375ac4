"""Which process trains in a run folder: only one that the kernel says has its lock.

What the file of the lock says are words, and a pid is soon another program's. So the process is
held by a descriptor of its own (pidfd) first, then must have this very file open and locked.
"""

import json
import os
import signal
from contextlib import suppress

from edge_train.records.lock import same_machine
from edge_train.watch.inside import open_file

_LOCK = "lock"
_MOST_BYTES = 4096  # of what a holder says
HAS_PROC = os.path.isdir("/proc/self/fdinfo")


def holder(root: str, *run: str) -> int | None:
    """Return the process that holds a run folder's lock; None if there is none that we can tell."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        file, found = open_file(root, *run, _LOCK)
        try:
            said = json.loads(os.pread(file, _MOST_BYTES, 0))
        finally:
            os.close(file)
        pid = said["pid"]
        if type(pid) is int and 1 < pid < 2**31 and same_machine(said) and _has_locked(pid, found):
            return pid
    return None


def _has_locked(pid: int, found: os.stat_result) -> bool:
    """Return whether a process has this file open, with a lock on it."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if not os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), found):
                continue
            with open(f"/proc/{pid}/fdinfo/{name}") as file:
                if any(line.startswith("lock:") and "FLOCK" in line for line in file):
                    return True
        except OSError:  # closed while we looked
            continue
    return False


def is_command(pid: int) -> bool:
    """Return whether a process is `edge-train run`; a notebook may train inside itself, too."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return b"run" in words and any(b"edge_train" in w or b"edge-train" in w for w in words)


def ask_to_stop(root: str, *run: str) -> int | None:
    """Send the command that trains in a folder what Ctrl-C sends; return its pid.

    None: there is no such command. Nothing else is ever sent anything.

    Raises:
      OSError: it may not be sent anything by this user.
    """
    pid = holder(root, *run)
    if pid is None:
        return None
    process = os.pidfd_open(pid)
    try:
        if holder(root, *run) != pid or not is_command(pid):  # it is the process that we now have
            return None
        signal.pidfd_send_signal(process, signal.SIGINT)
        return pid
    except ProcessLookupError:
        return None
    finally:
        os.close(process)
