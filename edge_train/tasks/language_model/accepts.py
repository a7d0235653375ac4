"""Whether a file looks like text to learn a language from."""

from pathlib import Path

from edge_train.tasks.table_look import first_rows

_ENDINGS = {".txt", ".md", ".text"}
_KEYS = {"messages", "prompt", "completion", "text", "conversations"}
_LABELS = {"label", "labels", "class", "target", "category", "sentiment"}


def accepts(path: Path) -> str | None:
    """Return what it is: a text, or rows of texts or chats without a label."""
    if path.is_file() and path.suffix.lower() in _ENDINGS:
        return "a text"
    rows = first_rows(path)
    if not rows or any(_LABELS & row.keys() for row in rows):
        return None
    if any("messages" in row for row in rows):
        return "chats"
    return "texts" if any(_KEYS & row.keys() for row in rows) else None
