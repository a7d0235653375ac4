"""Whether a file looks like a cloud of points."""

from pathlib import Path

from edge_train.tasks.cloud_look import looks_like_cloud


def accepts(path: Path) -> str | None:
    """Return what it is: one cloud in a file; a folder of them is data of task points."""
    if path.is_file() and looks_like_cloud(path):
        return "a cloud of points"
    return None
