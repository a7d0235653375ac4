"""Whether a file or folder looks like text to learn a language from."""

from pathlib import Path

from edge_train.formats.picture_folders import folders_in, pictures_below
from edge_train.formats.tables.coding import kind_of
from edge_train.formats.tables.names import LABELS, TEXTS
from edge_train.formats.tables.splits import part_of
from edge_train.tasks.language_model.chats import looks_like
from edge_train.tasks.table_look import first_rows, training_file

_ENDINGS = (".txt", ".md", ".text")
_ANSWERED = "questions with answers"  # beside a label, pairs to tell right from wrong
_PART = ("prompt", "completion")  # of what is said to be missing once it is read


def accepts(path: Path) -> str | None:
    """Return what it is: a text, or rows of texts or chats without a label."""
    if kind_of(path) in _ENDINGS and path.is_file():
        return "a text"
    file = training_file(path)
    if file is None:
        alone = path.is_dir() and any(
            kind_of(p) in _ENDINGS and part_of(p) == "train" for p in path.iterdir()
        )
        return "a text in parts" if alone else _notes(path)
    rows = first_rows(file)
    names = {str(name).strip().lower() for row in rows or () for name in row}
    chats = looks_like(names)
    if chats is not None and not (chats == _ANSWERED and names & set(LABELS)):
        return chats
    if not names or names & set(LABELS):
        return None
    return "texts" if names & {*_PART, *TEXTS} else None


def _notes(path: Path) -> str | None:
    """Return what a folder is in which notes lie, maybe chats, and nothing else."""
    if not path.is_dir() or any(map(pictures_below, folders_in(path))):
        return None
    files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    notes = [file for file in files if kind_of(file) in _ENDINGS]
    chats = [file for file in files if file not in notes]
    if not notes or len(files) < 2 or any(accepts(file) is None for file in chats):
        return None
    return f"{len(notes)} notes" + (" with chats" if chats else "")
