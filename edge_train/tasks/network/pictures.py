"""Labeled pictures as equal arrays, for networks that read pixels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError
from edge_train.formats.labeled_pictures import Labeled, labeled_pictures
from edge_train.formats.picture_folders import shown
from edge_train.formats.pictures import Fit, Look, read_picture

_MOST_SIDE = 512  # pixels; networks here are small


@dataclass(frozen=True)
class PictureParts:
    """Pictures (samples, height, width, channels) and class numbers of the training and test part.

    `test` is None where the folder has none; `notices` says what was left out or changed.
    """

    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]] | None
    class_names: tuple[str, ...]
    notices: tuple[str, ...]


def load_pictures(
    path: Path, resolution: int | None, label_column: str | None = None
) -> PictureParts:
    """Return the pictures of a folder with their classes; see `labeled_pictures`.

    All pictures are stretched to one size; they are grey where each of them is.

    Args:
      resolution: side of the result; None: the size of the first picture.
      label_column: of the table; None: `label` or the like.

    Raises:
      InputError: it cannot be used.
    """
    found = labeled_pictures(path, label_column)
    looks, notices = found.looks, list(found.notices)
    numbers = {name: number for number, name in enumerate(found.names)}
    side = _side(found.parts["train"][0][0], looks, resolution)
    grey = all(look.grey for look in looks.values())
    notes: Counter[str] = Counter()
    fit = Fit(side)
    read = {part: _read(some, numbers, fit, grey, notes) for part, some in found.parts.items()}
    notices += _of_shapes(looks, side)
    notices += [f"{count} of {len(looks)} pictures: {note}" for note, count in notes.items()]
    if not grey and any(look.grey for look in looks.values()):
        count = sum(look.grey for look in looks.values())
        notices.append(f"{count} of {len(looks)} pictures are grey; all are read as color")
    notices += found.remarks()
    return PictureParts(read["train"], read.get("test"), found.names, tuple(notices))


def _side(first: Path, looks: Mapping[Path, Look], resolution: int | None) -> tuple[int, int]:
    size = looks[first].size
    side = (resolution, resolution) if resolution else size
    if max(side) > _MOST_SIDE:
        raise InputError(
            f"data {shown(first)}: {size[0]}x{size[1]} pixels is more than {_MOST_SIDE} a side; "
            "set resolution, such as 64."
        )
    return side


def _read(
    labeled: Sequence[Labeled],
    numbers: Mapping[str, int],
    fit: Fit,
    grey: bool,
    notes: Counter[str],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the arrays of a part; one of its size and one picture exist at a time."""
    width, height = fit.size
    pictures = np.empty((len(labeled), height, width, 1 if grey else 3), np.uint8)
    for number, (file, _) in enumerate(labeled):
        picture = read_picture(file, fit, grey=grey)
        pictures[number] = picture.pixels
        notes.update(picture.notes)
    return pictures, np.array([numbers[label] for _, label in labeled])


def _of_shapes(looks: Mapping[Path, Look], side: tuple[int, int]) -> list[str]:
    """Return a line about pictures whose shape is changed, and one about those enlarged."""
    sizes = [look.size for look in looks.values()]
    bent = sum(size[0] * side[1] != size[1] * side[0] for size in sizes)
    small = sum(size[0] < side[0] or size[1] < side[1] for size in sizes)
    shape, lines = f"{side[0]}x{side[1]}", []
    if bent:
        lines.append(
            f"{bent} of {len(sizes)} pictures have another shape than {shape} and are stretched "
            "to it"
        )
    if small:
        lines.append(f"{small} of {len(sizes)} pictures are smaller than {shape} and are enlarged")
    return lines
