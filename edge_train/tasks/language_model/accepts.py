"""Whether a file looks like text to learn a language from."""

from pathlib import Path

from edge_train.formats.tables.coding import kind_of
from edge_train.formats.tables.names import LABELS, TEXTS
from edge_train.formats.tables.splits import part_of
from edge_train.tasks.table_look import first_rows, training_file

_ENDINGS = (".txt", ".md", ".text")
_KEYS = {"messages", "prompt", "completion", "conversations", *TEXTS}


def accepts(path: Path) -> str | None:
    """Return what it is: a text, or rows of texts or chats without a label."""
    if kind_of(path) in _ENDINGS and path.is_file():
        return "a text"
    file = training_file(path)
    if file is None:
        alone = path.is_dir() and any(
            kind_of(p) in _ENDINGS and part_of(p) == "train" for p in path.iterdir()
        )
        return "a text in parts" if alone else None
    rows = first_rows(file)
    names = {str(name).strip().lower() for row in rows or () for name in row}
    if not names or names & set(LABELS):
        return None
    if "messages" in names:
        return "chats"
    return "texts" if names & _KEYS else None
