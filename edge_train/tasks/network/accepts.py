"""Whether a file or folder looks like samples of a small network."""

from pathlib import Path

from edge_train.formats.picture_folders import (
    folders_in,
    holds_classes,
    looks_like_pictures,
    parts_of,
    pictures_below,
    repeats_of,
)
from edge_train.formats.picture_tables import kinds_in
from edge_train.tasks.table_look import columns_of, first_rows, training_file

_ELSE = "from few of them --task images --model BACKBONE learns more"


def accepts(path: Path) -> str | None:
    """Return what it is: arrays, a table of numbers with a label, a folder of pictures a class."""
    if path.is_file() and path.suffix.lower() == ".npz":
        return "arrays"
    if path.is_dir():
        train = parts_of(folders_in(path)).get("train")
        whole = train if train and holds_classes(train) else path
        if "label" in kinds_in(whole):
            return f"pictures with labels in a table ({_ELSE})"
        folders = [folder for folder in folders_in(whole) if not repeats_of(folder)]
        if classes := sum(map(pictures_below, folders)):
            return f"pictures of {classes} classes ({_ELSE})"
        if looks_like_pictures(path):
            return None  # whatever table lies beside them
    file = training_file(path)
    columns = None if file is None else columns_of(file)
    if not columns or "sentence" in columns or "other" in columns:
        return None
    if columns.count("number") < 2 and (path.is_dir() or first_rows(path) is not None):
        return None  # words with a label
    words = columns.count("word")
    return "a table of numbers" if words <= 1 < len(columns) else None
