"""Pictures with classes: a folder for each, or a table of names beside them; not decoded yet."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import InputError
from edge_train.formats.left_aside import lines_of, some_of
from edge_train.formats.picture_folders import (
    SHOWN_SUFFIXES,
    PictureRoot,
    duplicates,
    holds_classes,
    parts_of,
    shown,
)
from edge_train.formats.picture_tables import FILES, read_column
from edge_train.formats.pictures import Look, look_at
from edge_train.formats.tables.names import LABELS

_NAMED = 3  # duplicates and pictures that cannot be read; the rest is counted

Labeled = tuple[Path, str]


@dataclass(frozen=True)
class LabeledPictures:
    """Where pictures lie, with their classes, and what their first bytes say.

    Attributes:
      root: the folder, which knows what was left aside.
      parts: file and class of every picture, by `train` and, where the data has one, `test`.
      names: of the classes, in order; those of `train`.
      looks: of every picture.
      notices: what was left out of the parts, a line each.
    """

    root: PictureRoot
    parts: Mapping[str, Sequence[Labeled]]
    names: tuple[str, ...]
    looks: Mapping[Path, Look]
    notices: tuple[str, ...]

    def remarks(self) -> list[str]:
        """Return what should be known of the classes: rare ones, doubtful names, duplicates."""
        return [
            *_of_classes(self.parts["train"], self.names),
            *_of_case(self.names),
            *_of_duplicates(self.root, self.parts),
            *lines_of(self.root.skipped),
        ]


def labeled_pictures(path: Path, label_column: str | None = None) -> LabeledPictures:
    """Return the pictures of a folder or of a table with their classes.

    A table (CSV, JSONL, Parquet) has columns of a path below its own folder, `path`, `file_name` or
    the like, and of a label. A folder, or `train` and `test` (or `val`) in it, holds a sub-folder
    for each class, whose sub-folders belong to it; or pictures with a `metadata.csv` or
    `metadata.jsonl` of the columns `file_name` and `label`.

    Args:
      label_column: of the table; None: `label` or the like.

    Raises:
      InputError: it cannot be used.
    """
    notices: list[str] = []
    if path.is_file():
        root = PictureRoot(path.parent)
        folders = {"train": path.parent}
        labeled = {"train": _of_table(root, path, label_column, notices)}
    else:
        root = PictureRoot(path)
        folders = _parts(root, notices)
        labeled = {
            part: _labeled(root, folder, label_column, notices) for part, folder in folders.items()
        }
    train = labeled["train"]
    if not train:
        raise InputError(
            f"data {shown(path)}: no subfolder holds pictures ({SHOWN_SUFFIXES}); expected one "
            "subfolder a class, or a metadata.csv with file_name and label. "
            + " ".join(f"{line.capitalize()}." for line in lines_of(root.skipped)[:_NAMED])
        )
    names = _names({label for _, label in train})
    for part, some in labeled.items():
        unknown = Counter(label for _, label in some if label not in names)
        if unknown:
            notices.append(
                f"left aside: {unknown.total()} pictures of the {part} part, of classes without "
                f"any for training ({some_of(sorted(unknown))})"
            )
        labeled[part] = [(file, label) for file, label in some if label in names]
        if not labeled[part]:
            raise InputError(f"data {shown(folders[part])}: its subfolders hold no pictures.")
    looks = _looks({file for some in labeled.values() for file, _ in some})
    return LabeledPictures(root, labeled, names, looks, tuple(notices))


def root_of(path: Path) -> Path:
    """Return the folder that names of pictures are below: the data, or that of its table."""
    return path.parent if path.is_file() else path


def _parts(root: PictureRoot, notices: list[str]) -> dict[str, Path]:
    """Return the folders of the training and test part, by `train` and `test`."""
    top = root.list(root.path)
    parts = parts_of(top.folders)
    if not parts or not holds_classes(parts["train"]):
        return {"train": root.path}
    for part in ("val", "test"):
        if part in parts and not holds_classes(parts[part]):
            root.skipped[root.name(parts.pop(part))] = "no classes in it, so no part of the data"
    for other in {*top.folders, *top.pictures} - set(parts.values()):
        root.skipped[root.name(other)] = "neither train nor test, and beside them"
    if "val" in parts:
        name = root.name(parts["val"])
        if "test" in parts:
            root.skipped[name] = (
                "not used: the test part is scored, and samples held out of the training part "
                "choose the best step"
            )
        else:
            parts["test"] = parts["val"]
            notices.append(f"{name} is the test part; there is no other")
        del parts["val"]
    return parts


def _labeled(
    root: PictureRoot, folder: Path, label_column: str | None, notices: list[str]
) -> list[Labeled]:
    """Return the pictures of a part with their labels, class after class."""
    found = root.list(folder)
    if found.table is not None:
        named = read_column(found.table, LABELS, label_column)
        if named is not None:
            notices += named.said
            return _from_table(root, folder, found.table, named.texts)
        root.skipped[root.name(found.table)] = f"it has no column {LABELS[0]!r}"
    if label_column is not None:
        raise InputError(
            f"data {shown(folder)}: label_column is {label_column!r}, but no metadata.csv lies "
            "beside the pictures; leave it out, and folders are classes."
        )
    labeled = [(file, shown(inner.name)) for inner in found.folders for file in root.below(inner)]
    for stray in (*(found.pictures if labeled else ()), *found.captions):
        root.skipped[root.name(stray)] = "in no folder of a class"
    empty = {shown(inner.name) for inner in found.folders} - {label for _, label in labeled}
    root.skipped |= dict.fromkeys(sorted(empty), "no pictures in it")
    return labeled


def _of_table(
    root: PictureRoot, table: Path, label_column: str | None, notices: list[str]
) -> list[Labeled]:
    """Return what a table that was named itself says; pictures beside it are not spoken of."""
    named = read_column(table, LABELS, label_column, FILES)
    if named is None:
        raise InputError(
            f"data {shown(table)}: no column {LABELS[0]!r}; name the one of the classes with "
            "--label-column."
        )
    notices += named.said
    found = _from_table(root, root.path, table, named.texts)
    root.skipped.clear()
    return found


def _from_table(
    root: PictureRoot, folder: Path, table: Path, labels: Mapping[str, str]
) -> list[Labeled]:
    below = {file.relative_to(folder).as_posix(): file for file in root.below(folder)}
    if missing := [name for name in labels if name not in below]:
        raise InputError(
            f"data {shown(table)}: there is no picture {some_of(missing)} beside it; put it there, "
            "or remove its line."
        )
    for name in below.keys() - labels.keys():
        root.skipped[root.name(below[name])] = f"not in {table.name}"
    return [(below[name], labels[name]) for name in sorted(labels)]


def _names(labels: set[str]) -> tuple[str, ...]:
    """Return class names in order; whole numbers as numbers.

    >>> _names({"10", "2"}), _names({"b", "a"})
    (('2', '10'), ('a', 'b'))
    """
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _looks(files: set[Path]) -> dict[Path, Look]:
    """Return size and kind of all pictures; those that cannot be read are refused together."""
    looks, broken = {}, []
    for file in sorted(files):
        try:
            looks[file] = look_at(file)
        except InputError as error:
            broken.append(error)
    if broken:
        more = len(broken) - _NAMED
        lines = " ".join(map(str, broken[:_NAMED]))
        raise InputError(f"data {lines}" + (f" So are {more} more." if more > 0 else ""))
    return looks


def _of_classes(train: Sequence[Labeled], names: Sequence[str]) -> list[str]:
    counts = Counter(label for _, label in train)
    single = [name for name in names if counts[name] == 1]
    if not single:
        return []
    return [f"only one picture to train on: {some_of(single)}; a class needs several"]


def _of_case(names: Sequence[str]) -> list[str]:
    """Return a line about classes whose names differ in capital and small letters only."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(name)
    pairs = [" and ".join(some) for some in alike.values() if len(some) > 1]
    if not pairs:
        return []
    return [
        f"classes that differ in case only are told apart: {some_of(pairs)}; give them one name "
        "if they are one"
    ]


def _of_duplicates(root: PictureRoot, labeled: Mapping[str, Sequence[Labeled]]) -> list[str]:
    """Return lines about pictures that are there more than once, the worst kind first."""
    where = {file: (part, label) for part, some in labeled.items() for file, label in some}
    kinds: dict[str, list[str]] = {}
    for group in duplicates(list(where)):
        parts, labels = ({where[file][i] for file in group} for i in (0, 1))
        if len(labels) > 1:
            kind = "the same picture in different classes"
        elif len(parts) > 1:
            kind = "the same picture for training and for the test, whose score it flatters"
        elif parts == {"train"}:
            kind = "the same picture more than once; one that is held out flatters the score"
        else:
            kind = "the same picture more than once"
        kinds.setdefault(kind, []).append(" = ".join(root.name(file) for file in group[:_NAMED]))
    return [f"{kind}: {some_of(groups)}" for kind, groups in sorted(kinds.items())]
