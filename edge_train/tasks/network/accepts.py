"""Whether a file or folder looks like samples of a small network."""

from pathlib import Path

from edge_train.formats.picture_folders import (
    folders_in,
    looks_like_pictures,
    parts_of,
    repeats_of,
)
from edge_train.tasks.table_look import columns_of, first_rows, training_file


def accepts(path: Path) -> str | None:
    """Return what it is: arrays, a table of numbers with a label, a folder of pictures a class."""
    if path.is_file() and path.suffix.lower() == ".npz":
        return "arrays"
    if path.is_dir():
        folders = folders_in(path)
        parts = parts_of(folders)
        if parts and not looks_like_pictures(parts["train"]):
            folders = folders_in(parts["train"])
        classes = [f for f in folders if not repeats_of(f) and _has_pictures(f)]
        if classes:
            return f"pictures of {len(classes)} classes"
    file = training_file(path)
    columns = None if file is None else columns_of(file)
    if not columns or "sentence" in columns or "other" in columns:
        return None
    if columns.count("number") < 2 and (path.is_dir() or first_rows(path) is not None):
        return None  # words with a label
    words = columns.count("word")
    return "a table of numbers" if words <= 1 < len(columns) else None


def _has_pictures(folder: Path) -> bool:
    return bool(looks_like_pictures(folder)) or any(map(_has_pictures, folders_in(folder)))
