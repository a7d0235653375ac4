"""Files and folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_train.errors import InputError, RunFolderError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see `write_parts`."""
    write_parts(path, [content])


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file, a part at a time, under a temporary name, sync it and rename it into place.

    Raises:
      RunFolderError: the disk is full or the folder cannot be written; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}).") from error
    finally:
        with suppress(OSError):  # a disk that takes nothing has its own sentence above
            temporary.unlink(missing_ok=True)


def check_free(out: Path) -> None:
    """Refuse a folder that holds something already, before the work that would fill it.

    Raises:
      InputError: something is in the way, or nothing can be made there.
    """
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); name another folder.") from (
            error
        )
    if taken:
        raise InputError(f"{out} exists already; remove it, or name another folder.")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`; it becomes `out` at the end, or vanishes on an error.

    Raises:
      InputError: the disk is full or cannot be written.
    """
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); try another disk.") from (
            error
        )
    finally:
        shutil.rmtree(partial, ignore_errors=True)
