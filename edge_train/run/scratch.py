"""Folders among the temporary files: gone at the end, swept by a later run after a kill.

Whoever works in one shares a lock of the kernel's (`flock`) on a file in it, which is let go when
the process ends, however it ends. So a folder whose lock can be had alone is nobody's.
"""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from edge_train.errors import InputError
from edge_train.memory.link import Link
from edge_train.process import interrupts
from edge_train.records.lock import HAS_LOCKS

if HAS_LOCKS:
    import fcntl

REHEARSAL, BENCH = "edge-train-plan-", "edge-train-bench-"  # what names begin with
_LOCK = "in-use"
# Without a lock (earlier versions, file systems and systems without any) age tells: nothing works
# in such a folder for a day without writing a file.
_QUIET_SECONDS = 86_400


@contextmanager
def scratch(link: Link | None = None, prefix: str = REHEARSAL) -> Iterator[Path]:
    """Yield a folder to work in, gone afterwards, however this process or its worker ends.

    Args:
      link: its supervisor is told, which removes the folder of a worker that was killed.
      prefix: of its name.

    Raises:
      InputError: there is no place for temporary files.
    """
    folder = _place() / f"{prefix}{os.urandom(8).hex()}"
    sweep()
    if link is not None:
        link.tell(scratch=str(folder))
    remove = partial(shutil.rmtree, folder, ignore_errors=True)
    with interrupts.undone(remove):
        try:
            _make(folder)
            with in_use(folder):
                yield folder
        finally:
            remove()


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep others from sweeping a folder of `scratch`, for as long as this process lives."""
    file = _locked(folder)
    try:
        yield
    finally:
        if file is not None:
            os.close(file)


def sweep() -> None:
    """Remove the folders of `scratch` that killed processes of this user left."""
    with suppress(InputError, OSError):
        for path in _place().iterdir():
            if path.name.startswith((REHEARSAL, BENCH)):
                with suppress(OSError):
                    _remove_unused(path)


def _place() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise InputError(f"nothing can be rehearsed: {error}; set TMPDIR to a folder.") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made to rehearse in ({error.strerror}); set TMPDIR to a folder "
            "on another disk."
        ) from error


def _locked(folder: Path) -> int | None:
    """Return the open file of a shared lock; None where there are no locks."""
    if not HAS_LOCKS:
        return None
    path = folder / _LOCK
    if not path.exists():  # it gets its name when it is locked: nobody finds it free
        begun = folder / f"{_LOCK}.partial"
        return _share(begun, path)
    return _share(path, path)


def _share(found: Path, path: Path) -> int | None:
    file = None
    try:
        file = os.open(found, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        found.replace(path)
    except OSError:  # a full disk, a file system without locks; then age tells
        if file is not None:
            os.close(file)
        return None
    return file


def _remove_unused(folder: Path) -> None:
    """Remove a folder that nobody works in.

    Raises:
      OSError: it is gone already, or somebody is at it.
    """
    found = folder.lstat()
    mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    if not (stat.S_ISDIR(found.st_mode) and mine):
        return
    file = _taken_alone(folder / _LOCK)
    try:
        if file is not None or time.time() - _changed(folder) > _QUIET_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if file is not None:
            os.close(file)


def _taken_alone(path: Path) -> int | None:
    """Return the open file of a lock that nobody else has; None where there is no lock.

    Raises:
      BlockingIOError: somebody has it.
    """
    if not HAS_LOCKS:
        return None
    file = None
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if file is not None:
            os.close(file)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return file


def _changed(folder: Path) -> float:
    """Return when anything in a folder was written last."""
    times = [folder.lstat().st_mtime]
    for place, _, names in os.walk(folder):
        times += [Path(place, name).lstat().st_mtime for name in names]
    return max(times)
