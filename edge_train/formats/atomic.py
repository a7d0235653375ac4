"""Files and folders that appear whole or not at all."""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from edge_train.errors import InputError, RunFolderError
from edge_train.process.interrupts import undone


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see `write_parts`."""
    write_parts(path, [content])


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file, a part at a time, under a temporary name, sync it and rename it into place.

    Raises:
      RunFolderError: the disk is full or the folder cannot be written; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with undone(partial(temporary.unlink, missing_ok=True)), open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if sys.platform != "win32":  # where no folder can be opened
            _sync_folder(path.parent)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror}).") from error
    finally:
        with suppress(OSError):  # the cause is what matters, such as a read-only disk
            temporary.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
    begun = out.absolute().with_name(f".{out.absolute().name}.partial")
    above = [path for path in begun.parents if not path.exists()]

    def remove() -> None:
        shutil.rmtree(begun, ignore_errors=True)
        for path in above:
            with suppress(OSError):  # `out` is in it
                path.rmdir()

    remove()
    try:
        with undone(remove):
            begun.mkdir(parents=True)
            yield begun
            if out.exists():
                out.rmdir()
            os.replace(begun, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); try another disk.") from (
            error
        )
    finally:
        remove()
