"""Whether a file or folder looks like labeled texts."""

from pathlib import Path

from edge_train.tasks.table_look import columns_of, first_rows

_PARTS = ("train.tsv", "train.csv", "train.jsonl")
_LABELS = {"label", "labels", "class", "target", "category", "sentiment"}


def accepts(path: Path) -> str | None:
    """Return what it is: a table with sentences, rows with labels, or a folder of parts."""
    if path.is_dir():
        parts = [name for name in _PARTS if (path / name).is_file()]
        return f"labeled texts in parts ({', '.join(parts)})" if parts else None
    columns = columns_of(path)
    if columns is not None:
        return "labeled texts" if "sentence" in columns and len(columns) > 1 else None
    rows = first_rows(path)
    return "labeled texts" if rows and any(_LABELS & row.keys() for row in rows) else None
