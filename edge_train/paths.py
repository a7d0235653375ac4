"""Whether a word can be the path of a file or folder, asked once, before anything is opened.

Every command and every option that takes a path asks here: a name that no file can have, one that
cannot be kept in a recipe, and a pipe, which would be waited for. Whether something is there is
for whoever reads it to say. Standard library only.
"""

import os
import stat
from pathlib import Path

from edge_train.errors import InputError
from edge_train.units import shown


def check_path(text: str, name: str) -> None:
    """Refuse what cannot be a file or folder.

    Args:
      name: of the option or key, before the sentence.

    Raises:
      InputError: empty, no Unicode, a NUL, too long, of a user who is not there, a
        pipe or device.
    """
    lead = f"{name} = {shown(text)}"
    if not text:
        raise InputError(f"{name} is empty; name a file or folder.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{lead} is not text that can be kept: the name, or this locale, is not UTF-8; "
            "rename it, or set LC_ALL=C.UTF-8."
        ) from error
    if "\0" in text:
        raise InputError(f"{lead} is not text that can be kept: no name holds a NUL.")
    try:
        found = os.stat(Path(text).expanduser())  # noqa: PTH116 - on Python 3.14 Path's is quiet
    except RuntimeError as error:
        raise InputError(f"{lead}: there is no such user here.") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            return
        raise InputError(f"{lead} cannot be a file or folder here ({error.strerror}).") from error
    if kind := special_kind(found.st_mode):
        raise InputError(f"{lead} is {kind}, not a file or folder; write it to a file first.")


def special_kind(mode: int) -> str:
    """Return what that is no file or folder a mode is of, in words; empty for these.

    >>> special_kind(stat.S_IFIFO | 0o644), special_kind(stat.S_IFREG | 0o644)
    ('a pipe', '')
    """
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def path_word(text: str) -> Path:
    """Return the path that a word of the command line is, for argparse; see `check_path`."""
    check_path(text, "path")
    return Path(text)


def file_word(text: str) -> str:
    """Return a word that may be a path, or a name that is known elsewhere; see `check_path`."""
    check_path(text, "path")
    return text
