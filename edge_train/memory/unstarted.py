"""Remove what a process left that could not do it: a run that never started, a rehearsal.

Standard library only.
"""

from __future__ import annotations

import os
from contextlib import suppress

with suppress(ImportError):  # on Windows, where nobody is held off
    import fcntl

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Sequence


def remove_unstarted(folder: str, made: Sequence[str]) -> None:
    """Empty a folder in which no step was recorded, and remove what was made for it.

    Args:
      folder: of a run, which holds it; empty when that run got it, or has none yet.
      made: folders that were made for it, the innermost first; those that hold other things stay,
        but for a lock that nobody got.
    """
    if folder:
        with suppress(OSError):
            if os.path.getsize(f"{folder}/journal.jsonl"):  # noqa: PTH202 - pathlib is large
                return
        _empty(folder)
    elif made:
        _remove_free_lock(f"{made[0]}/lock")
    for name in made:
        with suppress(OSError):
            os.rmdir(name)  # noqa: PTH106


def remove_folder(folder: str) -> None:
    """Remove a folder and all that is in it; no matter if it is gone already."""
    _empty(folder)
    with suppress(OSError):
        os.rmdir(folder)  # noqa: PTH106


def _empty(folder: str) -> None:
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with suppress(OSError):
                os.unlink(f"{place}/{name}")  # noqa: PTH108
        for name in folders:
            with suppress(OSError):
                os.rmdir(f"{place}/{name}")  # noqa: PTH106


def _remove_free_lock(path: str) -> None:
    with suppress(OSError):
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)  # noqa: PTH108
        finally:
            os.close(file)
