"""The one rule by which folders of pictures are read: what is a picture, and what is left aside."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_train.errors import InputError
from edge_train.formats.inside import inside_of
from edge_train.formats.left_aside import Reasons

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif"),
)
# Before the suffix of a picture: photo.mask.png weighs photo.jpg, and so does OneTrainer's
# photo-masklabel.png.
MASKS = (".mask", "-masklabel")
_CONDITION = "-condlabel"  # OneTrainer's: what a model is given beside the prompt
SHOWN_SUFFIXES = ".jpg, .png, .webp, .gif, .bmp, .tif, .avif or .heic"
CAPTIONS = (".txt", ".caption")  # the first goes before the second
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SYSTEM = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle"),
    *("$recycle.bin", "system volume information", "lost+found", "__pycache__"),
}
_REPEATS = re.compile(r"(\d{1,4})_(.+)")  # kohya's folders: how often, and the word
PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}


@dataclass(frozen=True)
class Listing:
    """What lies in a folder, by name; `skipped` has whatever is neither of these."""

    pictures: tuple[Path, ...]
    captions: tuple[Path, ...]
    folders: tuple[Path, ...]
    table: Path | None
    skipped: Reasons


@dataclass
class PictureRoot:
    """The folder that a user named; nothing outside of it is opened.

    Links to pictures inside of it are followed, and in a snapshot of the hub's cache those to the
    cache's own files. Links to folders are not: they can go round in circles.

    Attributes:
      path: as it was named.
      skipped: what was left aside in all that was listed, with the reason.
    """

    path: Path
    skipped: Reasons = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._inside = inside_of(self.path)

    def name(self, path: Path) -> str:
        """Return how a path below the root is called in a line."""
        return shown(path.relative_to(self.path))

    def list(self, folder: Path) -> Listing:
        """Return what lies directly in the root or a folder below it.

        Raises:
          InputError: the folder cannot be listed, or a file with the name of a picture is none
            that may be opened: nobody should train on fewer pictures than they gave.
        """
        try:
            entries = sorted(folder.iterdir(), key=lambda path: path.name)
        except OSError as error:
            raise InputError(f"{shown(folder)}: {error.strerror}.") from error
        skipped: Reasons = {}
        pictures, captions, folders, table = [], [], [], None
        for path in entries:
            if reason := self._aside(path):
                skipped[self.name(path)] = reason
            elif path.is_dir():
                folders.append(path)
            elif is_picture(path):
                self._check(path)
                pictures.append(path)
            elif is_text(path) and (reason := self._unreadable(path)):
                skipped[self.name(path)] = reason
            elif path.suffix.lower() in CAPTIONS:
                captions.append(path)
            elif path.name.lower() in TABLES:
                if table is None:
                    table = path
                else:
                    skipped[self.name(path)] = f"{table.name} is read"
            else:
                skipped[self.name(path)] = f"not a picture; {SHOWN_SUFFIXES} are read"
        self.skipped |= skipped
        return Listing(tuple(pictures), tuple(captions), tuple(folders), table, skipped)

    def below(self, folder: Path) -> tuple[Path, ...]:
        """Return the pictures of a folder and of all folders in it, sorted by path."""
        pictures: list[Path] = []
        folders = [folder]
        while folders:
            found = self.list(folders.pop())
            for caption in found.captions:
                self.skipped[self.name(caption)] = "a text, not a picture"
            pictures += found.pictures
            folders += found.folders
        return tuple(sorted(pictures))

    def _aside(self, path: Path) -> str | None:
        """Return why a name is not looked at any further."""
        is_folder = path.is_dir()
        if path.name.startswith("."):
            return "hidden folder" if is_folder else "hidden file"
        if path.name.lower() in _SYSTEM:
            return "made by the system, not by you"
        if is_folder and path.is_symlink():
            return "a link to a folder; those are not followed, copy it with cp -L -r"
        return None

    def _unreadable(self, path: Path) -> str | None:
        """Return why a file must not be opened."""
        if not path.is_file():  # opening a pipe would wait forever
            return "a broken link or no ordinary file"
        if not self._holds(path):
            return (
                "a link that leads out of the folder; copy all with what links lead to: "
                f"cp -L -r {shown(self.path)} COPY"
            )
        return None

    def _check(self, path: Path) -> None:
        if reason := self._unreadable(path):
            raise InputError(
                f"{shown(path)}: cannot be read ({reason}); remove it from the folder or replace "
                "it."
            )

    def _holds(self, path: Path) -> bool:
        """Return whether a file is inside, wherever links lead."""
        if not path.is_symlink():
            return True
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(folder) for folder in self._inside)


def shown(path: Path | str) -> str:
    """Return a path as printable text, also where its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def is_picture(path: Path) -> bool:
    """Return whether a name claims to be that of a picture."""
    return path.suffix.lower() in SUFFIXES


def photo_of_mask(path: Path) -> str | None:
    """Return the stem of the photos that a mask weighs; None for a picture that is no mask.

    >>> [photo_of_mask(Path(name)) for name in ("a.mask.png", "b-masklabel.png", "c.png")]
    ['a', 'b', None]
    """
    for end in MASKS:
        if path.stem.casefold().endswith(end) and len(path.stem) > len(end):
            return path.stem[: -len(end)]
    return None


def is_condition(path: Path) -> bool:
    """Return whether a picture is what OneTrainer gives a model beside the prompt of a photo.

    >>> [is_condition(Path(name)) for name in ("a-condlabel.png", "a.png", "-condlabel.png")]
    [True, False, False]
    """
    return path.stem.casefold().endswith(_CONDITION) and len(path.stem) > len(_CONDITION)


def is_photo(path: Path) -> bool:
    """Return whether a picture is neither the mask of a photo nor its condition."""
    return photo_of_mask(path) is None and not is_condition(path)


def is_text(path: Path) -> bool:
    """Return whether a name is that of a caption or of a table of names."""
    return path.suffix.lower() in CAPTIONS or path.name.lower() in TABLES


def looks_like_pictures(folder: Path) -> int:
    """Return how many names of pictures lie directly in a folder, for a first look.

    Raises:
      OSError: it cannot be listed.
    """
    named = [p for p in folder.iterdir() if is_picture(p) and not p.name.startswith(".")]
    return sum(not path.is_dir() for path in named)


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, links or of the system, by name.

    Raises:
      OSError: it cannot be listed.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir()
        and not (path.is_symlink() or path.name.startswith("."))
        and path.name.lower() not in _SYSTEM
    )


def pictures_below(folder: Path) -> bool:
    """Return whether a picture lies in a folder or further down, for a first look.

    Raises:
      OSError: one cannot be listed.
    """
    folders = [folder]
    while folders:
        here = folders.pop()
        if looks_like_pictures(here):
            return True
        folders += folders_in(here)
    return False


def repeats_of(folder: Path) -> tuple[int, str] | None:
    """Return how often kohya's trainer takes the photos of a folder, and what it calls them.

    >>> repeats_of(Path("10_sks dog")), repeats_of(Path("dogs"))
    ((10, 'sks dog'), None)
    """
    match = _REPEATS.fullmatch(folder.name)
    return (int(match[1]), match[2].strip()) if match and int(match[1]) else None


def parts_of(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the folders that hold a part of the data, by `train`, `test` and `val`.

    Without one for training they are classes of that name.

    >>> sorted(parts_of([Path("Train"), Path("validation"), Path("docs")]))
    ['train', 'val']
    """
    found = {
        part: folder
        for folder in folders
        for part, names in PARTS.items()
        if folder.name.lower() in names
    }
    return found if "train" in found else {}


def holds_classes(folder: Path) -> bool:
    """Return whether a part holds folders or a table, not just pictures as a class does.

    A class may be called `train`, like the one on rails.

    Raises:
      OSError: it cannot be listed.
    """
    names = {path.name.lower() for path in folder.iterdir()}
    return bool(names & {*TABLES}) or (bool(folders_in(folder)) and not looks_like_pictures(folder))


def duplicates(files: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return groups of files that hold the same bytes; only those of one length are read."""
    by_length = defaultdict(list)
    for file in files:
        by_length[file.stat().st_size].append(file)
    groups = defaultdict(list)
    for length, some in by_length.items():
        for file in some if len(some) > 1 else ():
            with open(file, "rb") as content:
                digest = hashlib.sha256()
                while part := content.read(1 << 20):
                    digest.update(part)
            groups[length, digest.digest()].append(file)
    return [tuple(group) for group in groups.values() if len(group) > 1]
