"""Which files look like clouds of points, by their names and first bytes."""

from pathlib import Path

from edge_train.formats.clouds.cloud import ENDINGS
from edge_train.formats.inside import wrong_place

_FIRST_BYTES = 4096
_SCANS = tuple(ending for ending in ENDINGS if ending != ".npz")  # any arrays may be in one


def clouds_below(folder: Path, *, archives: bool = False) -> list[Path]:
    """Return the files of a folder and the folders in it that are named like clouds, in order.

    Hidden files, and links that lead out of the folder, are left aside.

    Args:
      archives: `.npz` files, too.
    """
    endings = ENDINGS if archives else _SCANS
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in endings
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
        and not wrong_place(file, folder)
    )


def looks_like_cloud(file: Path) -> bool:
    """Return whether a file begins as its ending says."""
    if file.suffix.lower() not in _SCANS:
        return False
    with open(file, "rb") as opened:
        start = opened.read(_FIRST_BYTES)
    lines = [line.strip() for line in start.replace(b"\r", b"\n").split(b"\n")]
    if file.suffix.lower() == ".ply":
        return lines[0] == b"ply"
    if file.suffix.lower() == ".pcd":
        return any(line.startswith((b"FIELDS", b"# .PCD")) for line in lines)
    if file.suffix.lower() == ".obj":
        return any(line.startswith((b"v ", b"mtllib", b"o ", b"g ")) for line in lines)
    return any(_has_numbers(line) for line in lines[:5])


def _has_numbers(line: bytes) -> bool:
    words = line.replace(b",", b" ").replace(b";", b" ").split()[:3]
    try:
        return len([float(word) for word in words]) == 3
    except ValueError:
        return False
