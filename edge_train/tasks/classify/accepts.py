"""Whether a file or folder looks like labeled texts."""

from pathlib import Path

from edge_train.formats.tables.names import CHATS, LABELS
from edge_train.tasks.table_look import columns_of, first_rows, training_file


def accepts(path: Path) -> str | None:
    """Return what it is: a table with sentences, rows with labels, or a folder of parts."""
    file = training_file(path)
    if file is None:
        return None
    if path.is_dir():
        return f"labeled texts in parts ({file.name})" if _in_parts(file) else None
    rows = first_rows(file)
    if rows is not None:
        if not _labeled(rows) or _are_chats(rows) or _numbers(columns_of(file)):
            return None
        return "labeled texts"
    columns = columns_of(file)
    return "labeled texts" if columns and "sentence" in columns and len(columns) > 1 else None


def _in_parts(file: Path) -> bool:
    rows, columns = first_rows(file), columns_of(file)
    if rows is not None and not _labeled(rows):
        return False
    return columns is not None and len(columns) > 1 and not _numbers(columns)


def _are_chats(rows: list[dict[str, object]]) -> bool:
    """Return whether rows are chats: what stands beside them is of each."""
    return any(
        isinstance(value, list) and str(name).strip().lower() in CHATS
        for row in rows
        for name, value in row.items()
    )


def _labeled(rows: list[dict[str, object]]) -> bool:
    return any(str(name).strip().lower() in LABELS for row in rows for name in row)


def _numbers(columns: list[str] | None) -> bool:
    """Return whether a table is numbers beside a class."""
    return columns is not None and "sentence" not in columns and columns.count("number") > 1
