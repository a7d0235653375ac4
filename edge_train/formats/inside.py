"""Which files of a folder may be opened: ordinary ones, that no link leads out of what was named.

In a snapshot of the hub's cache, links lead to the cache's own files, and may.
"""

import os
from pathlib import Path


def inside_of(folder: Path) -> list[Path]:
    """Return the folder itself without links, and where the hub keeps the files of a snapshot."""
    real = Path(os.path.realpath(folder))  # `resolve` raises where links go round in circles
    found = [real]
    for above in (real, *real.parents):
        if above.parent.name == "snapshots" and (above.parent.parent / "blobs").is_dir():
            found.append(above.parent.parent / "blobs")
    return found


def wrong_place(path: Path, folder: Path) -> str:
    """Return why a file of a folder must not be opened, as part of a message; empty if it may.

    A file that is not there is no wrong place: whoever opens it says so.
    """
    try:
        if path.exists() and not path.is_file():
            return "a folder" if path.is_dir() else "a pipe, device or socket, no file"
        real = path.resolve()
    except OSError as error:
        return error.strerror or "a broken link"
    except RuntimeError:  # links in a circle
        return "a broken link"
    if not any(real.is_relative_to(one) for one in inside_of(folder)):
        return "a link that leads out of the folder; copy the file itself with cp -L"
    return ""
