"""Clouds of a folder or archive as one array: equally many points, around zero, of radius 1."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.clouds.cloud import Cloud, Frame, clouds_in, frame_of, read_clouds
from edge_train.rng import Key
from edge_train.tasks.cloud_look import clouds_below

FEWEST_CLOUDS = 2
_FEWEST_POINTS = 4  # of a cloud; the rest is repeated
_READ_AS_MANY = 8  # times the points of a cloud are kept of a larger one while it is read
_NAMED = 3  # files in a sentence


@dataclass(frozen=True)
class Clouds:
    """Clouds that a run learns from.

    Attributes:
      points: (clouds, points, 3) float32, each around zero with a radius of 1.
      frames: where each lay.
      names: a line for people each.
      notices: what was thinned, repeated or left out.
    """

    points: Array
    frames: Sequence[Frame]
    names: Sequence[str]
    notices: tuple[str, ...]


def files_of(path: Path) -> list[Path]:
    """Return the files with clouds: of a folder, or the one that is named.

    Raises:
      InputError: there are none.
    """
    if path.is_dir():
        files = clouds_below(path, archives=True)
        if not files:
            raise InputError(
                f"data {path}: no file is a cloud of points (.ply, .pcd, .xyz, .obj or .npz)."
            )
        return files
    if not path.is_file():
        raise InputError(f"data {path}: there is no such file or folder.")
    return [path]


def counted(path: Path, most: int | None) -> tuple[int, int]:
    """Return how many clouds there are, and the bytes of the largest file; headers are enough.

    Raises:
      InputError: as `files_of`, or a damaged archive.
    """
    files = files_of(path)
    count = sum(map(clouds_in, files))
    return min(count, most or count), max(file.stat().st_size for file in files)


def load(path: Path, points: int, most: int | None = None) -> Clouds:
    """Return the clouds of a folder, or of an archive.

    Args:
      points: of each cloud afterwards: a larger one is thinned by a fixed draw, of a smaller one
        points are repeated.
      most: clouds, the first ones by name.

    Raises:
      InputError: a cloud that cannot be used, or too few.
    """
    found: list[Array] = []
    frames: list[Frame] = []
    names: list[str] = []
    said = _Said()
    for file in files_of(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for number, cloud in enumerate(read_clouds(file, _READ_AS_MANY * points, Key(0, 0))):
            if most is not None and len(found) == most:
                break
            words = f"{name}#{number}" if number or clouds_in(file) > 1 else name
            placed, frame = placed_of(cloud, points, f"{file}", len(found))
            found.append(placed)
            frames.append(frame)
            names.append(words)
            said.about(cloud, points, words)
    if len(found) < FEWEST_CLOUDS:
        raise InputError(
            f"data {path}: has {len(found)} cloud; at least {FEWEST_CLOUDS} are needed to learn "
            "what they have in common. One cloud alone is for --task surface."
        )
    radii = sorted(frame.radius for frame in frames)
    size = (
        f"clouds are moved to the middle of their box and divided by their radius, "
        f"{radii[0]:.4g} to {radii[-1]:.4g} in the units of the files"
    )
    return Clouds(np.stack(found), frames, names, (size, *said.lines()))


def placed_of(cloud: Cloud, points: int, name: str, number: int) -> tuple[Array, Frame]:
    """Return a cloud with so many points, as training reads it, and where it lay.

    Args:
      number: of the cloud, which its draw follows from.

    Raises:
      InputError: it has too few points, or all of them are at one place.
    """
    count = len(cloud.points)
    if count < _FEWEST_POINTS:
        raise InputError(
            f"{name}: has {count} finite point{'s' * (count != 1)}, at least {_FEWEST_POINTS} are "
            "needed; leave the file out."
        )
    frame = frame_of(cloud.points)
    if not frame.radius > 0:
        raise InputError(f"{name}: all of its {count} points are at one place; leave it out.")
    draw = Key(0, number).generator("points of a cloud")
    chosen: NDArray[np.int64] = draw.permutation(count)[:points]
    if count < points:
        chosen = np.concatenate([chosen, draw.integers(count, size=points - count)])
    return frame.inward(cloud.points[chosen]), frame


class _Said:
    """What is unusual about clouds, counted."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def about(self, cloud: Cloud, points: int, name: str) -> None:
        kept = len(cloud.points)
        checks: dict[str, Callable[[], bool]] = {
            "have more points than a cloud is read with, and are thinned": lambda: (
                not cloud.sampled and cloud.found - cloud.not_finite > points
            ),
            f"have fewer than {points} points, of which some are repeated": lambda: kept < points,
            "have points that are not finite (NaN or infinite), which are left out": lambda: (
                cloud.not_finite > 0
            ),
            "are meshes, whose surface is sampled": lambda: cloud.sampled,
        }
        for words, holds in checks.items():
            if holds():
                self._names.setdefault(words, []).append(name)

    def lines(self) -> tuple[str, ...]:
        found = []
        for words, names in self._names.items():
            some = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            found.append(f"clouds that {words}: {len(names)} ({some})")
        return tuple(found)
