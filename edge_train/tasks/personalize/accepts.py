"""Whether a folder looks like photos of one thing."""

from pathlib import Path

from edge_train.formats.picture_folders import (
    folders_in,
    is_photo,
    is_picture,
    looks_like_pictures,
    repeats_of,
)
from edge_train.formats.picture_tables import kinds_in


def accepts(path: Path) -> str | None:
    """Return what a folder is, where its pictures lie side by side or in folders of repeats."""
    if not path.is_dir():
        return None
    if looks_like_pictures(path):
        labels = kinds_in(path) == {"label"}
        return None if labels else f"{_said(_photos(path))} of one thing"
    repeats = [folder for folder in folders_in(path) if repeats_of(folder)]
    inside = sum(map(_photos, filter(looks_like_pictures, repeats)))
    return f"{_said(inside)} of one thing, in folders of repeats" if inside else None


def _photos(folder: Path) -> int:
    """Return how many photos lie in a folder of pictures, without masks of them; at least one."""
    others = sum(
        not (is_photo(path) or path.name.startswith("."))
        for path in folder.iterdir()
        if is_picture(path)
    )
    return max(looks_like_pictures(folder) - others, 1)


def _said(count: int) -> str:
    return f"{count} photo{'s' if count > 1 else ''}"
