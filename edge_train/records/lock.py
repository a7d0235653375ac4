"""One writer for a run folder: a lock that the kernel lets go of when its holder ends.

The lock is the kernel's (`flock`), so none is ever stale: however a process ends, its lock is
gone. What the file says is only words for the one who is refused. Processes that follow each other
in one run lend each other the open file, whose lock lasts as long as any of them has it.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edge_train.errors import RunFolderError
from edge_train.records.folder import RunFolder

try:
    import fcntl

    HAS_LOCKS = True
except ImportError:  # Windows
    HAS_LOCKS = False

_BOOT = Path("/proc/sys/kernel/random/boot_id")  # pids of another boot are of other processes
_MOST_BYTES = 4096  # of what a holder says
_NO_LOCKS = "no locks here, so see to it that no other process trains in"


@contextmanager
def only_writer(
    folder: Path,
    say: Callable[[str], None],
    lent: int | None = None,
    lend: Callable[[int], None] = lambda file: None,
) -> Iterator[None]:
    """Hold a run folder as the only process that writes to it.

    A file system (or Windows) without locks is said, and no reason to stop.

    Args:
      lent: the open file of a lock that an earlier process of this run got, if there was one; it
        may be of another folder.
      lend: is given the open file, to be held by others of this run.

    Raises:
      RunFolderError: another process holds it, or nothing can be written there.
    """
    if not HAS_LOCKS:
        say(f"{_NO_LOCKS} {folder}")
        yield
        return
    file = _open(folder)
    if lent is not None and os.path.sameopenfile(file, lent):
        os.close(file)
        file = lent
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"{_holder(file)} is training in {folder}; wait for it or stop it, then go on with "
                f"`edge-train run --resume {folder}`."
            ) from None
        except OSError as error:
            say(f"{_NO_LOCKS} {folder} ({error.strerror})")
        if not _is_there(file, RunFolder(folder).lock):
            raise RunFolderError(f"{folder}: was removed by another process; start again.")
        words = {"pid": os.getpid(), "host": os.uname().nodename, "boot": _boot()}
        with suppress(OSError):  # a full disk; the lock holds without words
            _sweep(folder)
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(words).encode() + b"\n", 0)
        lend(file)
        yield
    finally:
        os.close(file)


def _sweep(folder: Path) -> None:
    """Remove files that killed processes did not finish, in folders of results, too."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(".partial"):
                Path(place, name).unlink(missing_ok=True)


def _open(folder: Path) -> int:
    """Return the open file of the lock; nothing that it starts inherits it."""
    path = RunFolder(folder).lock
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}).") from error


def _is_there(file: int, path: Path) -> bool:
    """Return whether the file that was locked still lies there: its holder may have removed it."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False


def _holder(file: int) -> str:
    """Return who holds the lock, in words; a pid only if it can be one of this machine, alive."""
    with suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        said = json.loads(os.pread(file, _MOST_BYTES, 0))
        if not same_machine(said):
            return f"a process of another machine ({str(said['host'])[:80]!r})"
        pid = int(said["pid"])
        with suppress(PermissionError):  # alive, and of another user
            os.kill(pid, 0)
        return f"a process (pid {pid})"
    return "another process"


def same_machine(said: Mapping[str, Any]) -> bool:
    """Return whether what a holder says of itself is of this machine, since it was started.

    Raises:
      KeyError: it does not say so.
    """
    return bool(said["host"] == os.uname().nodename and said["boot"] == _boot())


def _boot() -> str:
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return ""
