"""Whether a file or folder looks like samples of a small network."""

import re
from pathlib import Path

from edge_train.tasks.table_look import columns_of

_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_REPEATS = re.compile(r"\d+_.+")  # of a word's photos, not a class


def accepts(path: Path) -> str | None:
    """Return what it is: arrays, a table of numbers with a label, a folder of pictures a class."""
    if path.is_file() and path.suffix.lower() == ".npz":
        return "arrays"
    if path.is_dir():
        folders = [f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".")]
        classes = [f for f in folders if not _REPEATS.fullmatch(f.name) and _has_pictures(f)]
        return f"pictures of {len(classes)} classes" if classes else None
    columns = columns_of(path)
    if not columns or "sentence" in columns:
        return None
    words = columns.count("word")
    return "a table of numbers" if words <= 1 < len(columns) else None


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in _PICTURES for path in folder.rglob("*"))
