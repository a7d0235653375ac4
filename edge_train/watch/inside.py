"""Files of a folder, opened so that nothing outside of it can be reached.

A name is never joined to a path and believed: every folder on the way is opened from the one above
it, no link is followed, and what is opened must be a regular file.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

# O_NONBLOCK: a pipe is opened at once, and seen to be one
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def is_name(text: str) -> bool:
    """Return whether a text is the name of one thing in a folder, and of no other place."""
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text


@contextmanager
def opened_folder(parts: tuple[str, ...], root: str) -> Iterator[int]:
    """Yield the descriptor of a folder below `root`, a part of the way after the other.

    Raises:
      OSError: it is not there, or a link is on the way.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if not is_name(part):
                raise FileNotFoundError(part)
            below = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def open_file(root: str, *parts: str) -> tuple[int, os.stat_result]:
    """Return an open regular file below `root`, and what the system says of it.

    Raises:
      OSError: it is not there, or not a regular file, or a link is on the way.
    """
    *folders, name = parts
    if not is_name(name):
        raise FileNotFoundError(name)
    with opened_folder(tuple(folders), root) as folder:
        file = os.open(name, _FLAGS, dir_fd=folder)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        raise FileNotFoundError(name)
    return file, found


def names_in(root: str, *parts: str) -> list[str]:
    """Return the names in a folder below `root`; none if it is not there."""
    try:
        with opened_folder(parts, root) as folder:
            return os.listdir(folder)
    except OSError:
        return []
