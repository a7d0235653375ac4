"""Tables beside pictures, as the hub's imagefolder has them: a file name, and a text or label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.inside import wrong_place
from edge_train.formats.picture_folders import TABLES, shown
from edge_train.formats.tables.names import LABEL_FLAG, LABELS
from edge_train.formats.tables.table import Table, open_table

FILE = "file_name"
FILES = (FILE, "path", "file", "filename", "image")  # of a table that a user names itself
TEXTS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class Named:
    """What a table says of pictures: their names below its folder, and a text for each."""

    column: str
    texts: dict[str, str]
    said: tuple[str, ...]


def read_column(
    path: Path, names: Sequence[str], asked: str | None = None, files_in: Sequence[str] = (FILE,)
) -> Named | None:
    """Return the first of some columns that a table has, by name of the file; None: it has none.

    Capital and small letters are the same in names of columns. Labels may be words, whole numbers
    or true and false. A row without a text is left out.

    Args:
      asked: the column of labels that a user named, in place of `names`.
      files_in: what the column of files may be called.

    Raises:
      InputError: the table cannot be read, has no column of files, names a file outside of its
        folder, or one file twice with different texts.
    """
    table = open_table(path, {*files_in, *TEXTS, *LABELS}, (asked,))
    files = table.among(files_in)
    columns = [table.place(asked, LABEL_FLAG)] if asked else table.among(names)
    if not files:
        raise InputError(
            f"{shown(path)}: no column {' or '.join(files_in)}, which names the picture of a line; "
            f"it has {table.names()}."
        )
    if not columns:
        return None
    found: dict[str, str] = {}
    column = table.columns[columns[0]]
    for number, row in table.rows():
        file = _inside(path, number, row[files[0]])
        text = _text(path, number, column, row[columns[0]])
        if text and found.setdefault(file, text) != text:
            raise InputError(
                f"{shown(path)}: {file} stands there twice, with {column} {found[file]!r} and "
                f"{text!r}; remove one of the lines."
            )
    wrong = table.wrong.sentence()
    return Named(column, found, (*table.said, *([wrong] if wrong else [])))


def kinds_in(folder: Path) -> set[str]:
    """Return which of "text" and "label" the table of a folder has, for a first look.

    Raises:
      OSError: the folder cannot be listed.
    """
    for path in folder.iterdir():
        if path.name.lower() in TABLES and path.is_file() and not wrong_place(path, folder):
            try:
                table: Table = open_table(path, {FILE, *TEXTS, *LABELS})
            except InputError:
                return set()
            kinds = {"text": TEXTS, "label": LABELS}
            return {kind for kind, names in kinds.items() if table.among(names)}
    return set()


def _inside(table: Path, number: int, name: Any) -> str:
    """Return the name of a file below the table's folder."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{shown(table)}: line {number} has no {FILE}.")
    parts = name.strip().replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or ":" in parts[0] or "\0" in name:
        raise InputError(
            f"{shown(table)}: line {number} names {name!r}, which is not in the folder of the "
            "table; nothing outside of it is opened."
        )
    return "/".join(part for part in parts if part not in ("", "."))


def _text(table: Path, number: int, column: str, value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value)
    if value is None or isinstance(value, str):
        return " ".join((value or "").split())
    raise InputError(
        f"{shown(table)}: line {number}: {column} is {str(value)[:40]!r}; expected a text or a "
        "whole number."
    )
