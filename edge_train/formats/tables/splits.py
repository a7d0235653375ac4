"""The parts of a folder of tables or texts under their usual names: train, dev and test."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import InputError
from edge_train.formats.inside import wrong_place
from edge_train.formats.left_aside import Reasons, lines_of
from edge_train.formats.tables.coding import kind_of

NAMES = {
    "train": ("train", "training"),
    "dev": ("dev", "valid", "validation", "val", "eval"),
    "test": ("test",),
}
PARTS = tuple(NAMES)
# of the hub: train-00000-of-00003.parquet, older ones with a hash behind; of MNLI: dev_matched.tsv
_STEM = re.compile(r"([a-z]+)(?:[-_.](?:\d+[-_]of[-_]\d+(?:[-_][0-9a-f]+)?|matched|mismatched))?")


@dataclass(frozen=True)
class Splits:
    """Files of each part, in the order in which they are read, and what was left aside."""

    files: dict[str, tuple[Path, ...]]
    said: tuple[str, ...]


def part_of(path: Path) -> str | None:
    """Return the part that a file is by its name, None where it is none.

    >>> part_of(Path("Validation.CSV")), part_of(Path("train-00000-of-00002.parquet"))
    ('dev', 'train')
    >>> part_of(Path("notes.txt"))
    """
    found = _STEM.fullmatch(_stem(path))
    if found is None:
        return None
    return next((part for part, names in NAMES.items() if found[1] in names), None)


def splits_of(folder: Path, kinds: Collection[str]) -> Splits:
    """Return the parts of a folder, or of its folder `data`, as the hub lays them out.

    Of several files for a part the first is read, by name and then in the order of the kinds,
    unless they are numbered pieces of one. A folder with a single file is that file. Every other
    file is named once with the reason why it was left aside.

    Args:
      kinds: endings that are read, the preferred ones first.

    Raises:
      InputError: the folder cannot be read, or has no training part.
    """
    kinds = tuple(kinds)
    aside: Reasons = {}
    for place in (folder, folder / "data"):
        found, others = entries(place, kinds)
        aside |= {path.relative_to(folder).as_posix(): why for path, why in others.items()}
        parts = {path: part for path in found if (part := part_of(path)) is not None}
        if "train" in parts.values():
            aside |= {
                path.relative_to(folder).as_posix(): "its name is no train, dev or test"
                for path in found
                if path not in parts
            }
            chosen = _chosen(parts, kinds)
            return Splits(chosen.files, (*chosen.said, *lines_of(aside)))
    found, _ = entries(folder, kinds)
    if len(found) == 1:
        whole = f"{found[0].name} is all that is read of {folder}"
        return Splits({"train": (found[0],)}, (whole, *lines_of(aside)))
    has = f"; it has {', '.join(path.name for path in found[:5])}" if found else ""
    has += "".join(f"; {line}" for line in lines_of(aside))
    raise InputError(
        f"{folder}: no train.tsv, train.csv or train.jsonl{has}; put one there, or name a single "
        "file: --data FILE."
    )


def in_parts(folder: Path, kinds: Collection[str]) -> bool:
    """Return whether a folder has a training part, in it or in its folder `data`.

    Raises:
      InputError: it cannot be read.
    """
    found = (entries(place, kinds)[0] for place in (folder, folder / "data"))
    return any(part_of(path) == "train" for some in found for path in some)


def beside(path: Path, kinds: Collection[str]) -> tuple[Path, ...]:
    """Return the dev and test files that lie beside a training file, and are not read with it."""
    if part_of(path) != "train":
        return ()
    near, _ = entries(path.parent, kinds)
    return tuple(file for file in near if part_of(file) in ("dev", "test"))


def _chosen(parts: dict[Path, str], kinds: tuple[str, ...]) -> Splits:
    files: dict[str, tuple[Path, ...]] = {}
    said = []
    for part, names in NAMES.items():
        own = [path for path, of in parts.items() if of == part]

        def rank(path: Path, names: tuple[str, ...] = names) -> tuple[int, int, str]:
            name = re.split(r"[-_.]", _stem(path))[0]
            return names.index(name), kinds.index(kind_of(path)), path.name

        if not own:
            continue
        own.sort(key=rank)
        taken = [path for path in own if rank(path)[:2] == rank(own[0])[:2]]
        pieces = [path for path in taken if "of" in re.split(r"[-_.]", _stem(path))]
        whole = [path for path in taken if path not in pieces]
        files[part] = (whole[0],) if whole else tuple(pieces)
        if others := [path.name for path in own if path not in files[part]]:
            verb = "is" if len(others) == 1 else "are"
            said.append(f"{', '.join(others)} {verb} not used: {files[part][0].name} is")
    return Splits(files, tuple(said))


def _stem(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).stem


def entries(folder: Path, kinds: Collection[str]) -> tuple[list[Path], dict[Path, str]]:
    """Return the files of a folder that are read, by name, and why each other one is not.

    Hidden ones are not, nor links to elsewhere: nothing outside of what was named is read.

    Raises:
      InputError: it is there and cannot be read.
    """
    found: list[Path] = []
    aside: dict[Path, str] = {}
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir():
                continue
            if path.name.startswith("."):
                aside[path] = "hidden file"
            elif kind_of(path) not in kinds:
                aside[path] = "no table or text that is read"
            elif reason := wrong_place(path, folder):
                aside[path] = reason
            elif path.is_file():
                found.append(path)
            else:
                aside[path] = "a broken link"
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}).") from error
    return found, aside
