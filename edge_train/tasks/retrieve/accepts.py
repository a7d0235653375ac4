"""Whether a folder is documents with queries; notes alone may be data of several tasks."""

from pathlib import Path

from edge_train.tasks.retrieve.documents import is_collection


def accepts(path: Path) -> str | None:
    """Return what it is: a collection as BEIR lays it out. Notes are searched where they are told
    to be: `--task retrieve`.
    """
    return "documents with queries" if path.is_dir() and is_collection(path) else None
