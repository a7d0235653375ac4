"""Files of a system that a driver may withhold, take away or fill with anything."""

from pathlib import Path

_MOST_BYTES = 4096  # of a file with one value


def text_of(path: Path) -> str | None:
    """Return the text of a small file of the system; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return None


def number_of(path: Path, base: int = 10) -> int | None:
    """Return the whole number in a small file of the system; None where there is none."""
    try:
        return int(text_of(path) or "", base)
    except ValueError:
        return None


def folders(pattern: str, place: Path) -> list[Path]:
    """Return what matches in a folder of the system, in order; nothing where it is not there."""
    try:
        return sorted(place.glob(pattern))
    except OSError:
        return []
