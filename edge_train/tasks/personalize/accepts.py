"""Whether a folder looks like photos of one thing."""

from pathlib import Path

from edge_train.formats.picture_folders import (
    MASK,
    folders_in,
    is_picture,
    looks_like_pictures,
    repeats_of,
)
from edge_train.formats.picture_tables import kinds_in


def accepts(path: Path) -> str | None:
    """Return what a folder is, where its pictures lie side by side or in folders of repeats."""
    if not path.is_dir():
        return None
    if pictures := looks_like_pictures(path):
        labels = kinds_in(path) == {"label"}
        return None if labels else f"{_photos(path, pictures)} of one thing"
    repeats = [folder for folder in folders_in(path) if repeats_of(folder)]
    inside = sum(map(looks_like_pictures, repeats))
    return f"{inside} photos of one thing, in folders of repeats" if inside else None


def _photos(folder: Path, pictures: int) -> str:
    """Return how many photos a folder has, without their masks, in words."""
    stems = {path.stem.casefold() for path in folder.iterdir() if is_picture(path)}
    count = max(pictures - sum(stem.endswith(MASK) for stem in stems), 1)
    return f"{count} photo{'s' if count > 1 else ''}"
