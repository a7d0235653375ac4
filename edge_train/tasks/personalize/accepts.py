"""Whether a folder looks like photos of one thing."""

import re
from pathlib import Path

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".avif"}
_REPEATS = re.compile(r"\d+_.+")  # kohya's folders: how often, and the word


def accepts(path: Path) -> str | None:
    """Return what a folder is, where its pictures lie side by side or in folders of repeats."""
    if not path.is_dir():
        return None
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    pictures = sum(entry.suffix.lower() in ENDINGS for entry in entries if entry.is_file())
    if pictures:
        return f"{pictures} photos of one thing"
    repeats = [entry for entry in entries if entry.is_dir() and _REPEATS.fullmatch(entry.name)]
    inside = sum(e.suffix.lower() in ENDINGS for folder in repeats for e in folder.iterdir())
    return f"{inside} photos of one thing, in folders of repeats" if inside else None
