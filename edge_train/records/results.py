"""What a finished run left, by hash: so that a damaged result is told from a whole one."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_train.formats.weight_files import hash_of


def hashes_of(folder: Path, outputs: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of every file of the results, by its name in the run folder.

    Args:
      outputs: files or folders in it.

    Raises:
      OSError: one cannot be read.
    """
    return {
        path.relative_to(folder).as_posix(): hash_of([("", path)])
        for name in outputs
        for path in _files(folder / name)
    }


def gone_or_damaged(folder: Path, end: Mapping[str, Any]) -> list[str]:
    """Return a clause for each result that is not as the last record of a finished run has it.

    Of runs that recorded no hashes only missing results are noticed.
    """
    names = end.get("outputs", {}).values()
    found = [f"{name} is gone" for name in names if not (folder / name).exists()]
    for name, before in end.get("sha256", {}).items():
        try:
            if hash_of([("", folder / name)]) != before:
                found.append(f"{name} is damaged")
        except FileNotFoundError:
            if f"{name} is gone" not in found:
                found.append(f"{name} is gone")
        except OSError as error:
            found.append(f"{name} cannot be read ({error.strerror})")
    return found


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from sorted(one for one in path.rglob("*") if one.is_file())
