"""Whether a folder looks like clouds of points."""

from pathlib import Path

from edge_train.tasks.cloud_look import clouds_below, looks_like_cloud


def accepts(path: Path) -> str | None:
    """Return what it is: a folder with two clouds or more; one cloud is data of task surface."""
    if not path.is_dir():
        return None
    files = clouds_below(path)
    if len(files) < 2 or not looks_like_cloud(files[0]):
        return None
    return f"{len(files)} clouds of points"
