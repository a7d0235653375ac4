"""A cloud of points out of a file of any kind: bounded, finite, thinned where it is too large."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError
from edge_train.formats.clouds import npz, pcd, ply, text
from edge_train.formats.clouds.parts import DamagedCloud, Source
from edge_train.rng import Key

Points = NDArray[np.float64]  # (points, 3); coordinates of maps need all of it
Triangles = NDArray[np.int64]  # (triangles, 3), numbers of points
_READERS: dict[str, Callable[[Path], Source]] = {
    ".ply": ply.open_ply,
    ".pcd": pcd.open_pcd,
    ".xyz": text.open_xyz,
    ".obj": text.open_obj,
}
ENDINGS = (*_READERS, ".npz")
_MOST_VERTICES = 3_000_000  # of a mesh, which is held whole to be sampled
_LARGEST = 1e15  # a coordinate; squares and products of larger ones leave what numbers can hold


@dataclass(frozen=True)
class Cloud:
    """Points of a file.

    Attributes:
      points: finite, at most as many as were asked for.
      found: points in the file, or of its surface where it has triangles.
      not_finite: points that were left out because a coordinate is NaN or infinite.
      sampled: whether the points lie on triangles of the file rather than on its corners.
    """

    points: Points
    found: int
    not_finite: int = 0
    sampled: bool = False

    @property
    def thinned(self) -> bool:
        """Whether the file has more points than these."""
        return not self.sampled and self.found - self.not_finite > len(self.points)


class Frame(NamedTuple):
    """Where a cloud lies and how large it is, in the units of its file."""

    center: Points
    radius: float

    def inward(self, points: Points) -> NDArray[np.float32]:
        """Return points as training reads them: around zero, the farthest at a distance of 1."""
        return ((points - self.center) / self.radius).astype(np.float32)

    def outward(self, points: NDArray[np.floating]) -> Points:
        """Return points in the units of the file."""
        return self.center + self.radius * points.astype(np.float64)


def frame_of(points: Points) -> Frame:
    """Return the middle of a cloud's box and its farthest distance from there; 0 of one point."""
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    return Frame(center, float(np.sqrt(np.square(points - center).sum(axis=1).max())))


def read_cloud(path: Path, most: int, key: Key) -> Cloud:
    """Return the points of a .ply, .pcd, .xyz or .obj file, at most `most` of them.

    A cloud is read some rows at a time and thinned on the way: every 2nd, 4th, ... row is kept
    while there are more than twice `most`, then `most` are drawn of those. Where the file has
    triangles, `most` points are drawn on them, equally dense everywhere.

    Raises:
      InputError: it is no such file, damaged, or has no finite point.

    Memory:
      A cloud takes at most 96 bytes for each of `most` points and a few megabytes; a mesh 100 for
      each of its corners.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: must be a cloud of points, one of {', '.join(ENDINGS)}.")
    try:
        source = reader(path)
        if source.has_faces:
            return _of_surface(path, source, most, key)
        return _thinned(path, source.parts(), most, key)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except DamagedCloud as error:
        raise InputError(f"{path}: {error}") from error


def clouds_in(path: Path) -> int:
    """Return how many clouds a file holds: of `.npz` (clouds, points, 3) that many, else one.

    Raises:
      InputError: an .npz file that cannot be used.
    """
    if path.suffix.lower() != ".npz":
        return 1
    try:
        return npz.count(path)
    except DamagedCloud as error:
        raise InputError(f"{path}: {error}") from error


def read_clouds(path: Path, most: int, key: Key) -> Iterator[Cloud]:
    """Yield every cloud of a file, each with at most `most` points; see `read_cloud`.

    Raises:
      InputError: as `read_cloud`.
    """
    if path.suffix.lower() != ".npz":
        yield read_cloud(path, most, key)
        return
    try:
        for points in npz.clouds(path):
            yield _thinned(path, iter([points]), most, key)
    except DamagedCloud as error:
        raise InputError(f"{path}: {error}") from error


def _thinned(path: Path, parts: Iterator[NDArray[Any]], most: int, key: Key) -> Cloud:
    kept: list[Points] = []
    held, stride, found, wrong = 0, 1, 0, 0
    for part in parts:
        if part.dtype != np.float64:
            continue  # triangles
        rows = part[-found % stride :: stride]
        found += len(part)
        fine = np.isfinite(rows).all(axis=1)
        wrong += stride * int(len(rows) - fine.sum())
        kept.append(np.array(rows[fine], np.float64))
        held += len(kept[-1])
        while held > 2 * most:
            kept = [np.concatenate(kept)[::2].copy()]
            held, stride = len(kept[0]), 2 * stride
    points = np.concatenate(kept) if kept else np.empty((0, 3))
    _check(path, points, found)
    if len(points) > most:
        chosen = key.generator("thinning").permutation(len(points))[:most]
        points = points[np.sort(chosen)]
    return Cloud(points, found, min(wrong, found - len(points)))


def _check(path: Path, points: Points, found: int) -> None:
    if not found:
        raise InputError(f"{path}: has no points.")
    if not len(points):
        raise InputError(f"{path}: none of its {found} points is finite (NaN or infinite).")
    if np.abs(points).max() > _LARGEST:
        raise InputError(
            f"{path}: a coordinate is {np.abs(points).max():.3g}, at most {_LARGEST:g} is handled."
        )


def _of_surface(path: Path, source: Source, most: int, key: Key) -> Cloud:
    points, triangles = mesh_of(source)
    fine: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
    _check(path, points[fine], len(points))
    triangles = triangles[fine[triangles].all(axis=1)]
    sampled = surface_points(points, triangles, most, key)
    if sampled is None:  # no triangle has an area
        return _thinned(path, iter([points]), most, key)
    return Cloud(sampled, most, int(len(points) - fine.sum()), sampled=True)


def read_mesh(path: Path) -> tuple[Points, Triangles]:
    """Return corners and triangles of a .ply or .obj file; no triangles where it has none.

    Raises:
      InputError: it is no such file, or damaged.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: must be a mesh, .ply or .obj.")
    try:
        return mesh_of(reader(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except DamagedCloud as error:
        raise InputError(f"{path}: {error}") from error


def mesh_of(source: Source) -> tuple[Points, Triangles]:
    """Return the corners and triangles of an open file.

    Raises:
      DamagedCloud: it is too large to be held, or a triangle names a corner that is not there.
    """
    points, triangles, held = [np.empty((0, 3))], [np.empty((0, 3), np.int64)], 0
    for part in source.parts():
        (points if part.dtype == np.float64 else triangles).append(part)
        held += len(part)
        if held > 3 * _MOST_VERTICES:
            raise DamagedCloud(
                f"its mesh has more than {_MOST_VERTICES:,} corners; sample it to points first."
            )
    corners, faces = np.concatenate(points), np.concatenate(triangles)
    if len(faces) and not (faces.min() >= 0 and faces.max() < len(corners)):
        raise DamagedCloud(f"a triangle names a corner that none of its {len(corners)} is.")
    return corners, faces


def surface_points(corners: Points, triangles: Triangles, count: int, key: Key) -> Points | None:
    """Return `count` points drawn on triangles, equally dense everywhere; None without an area."""
    a, b, c = (corners[triangles[:, side]] for side in range(3))
    areas = np.sqrt(np.square(np.cross(b - a, c - a)).sum(axis=1))
    total = areas.sum()
    if not (len(triangles) and np.isfinite(total) and total > 0):
        return None
    draw = key.generator("surface")
    ends = np.cumsum(areas / total)
    which = np.minimum(np.searchsorted(ends, draw.random(count)), len(areas) - 1)
    root, other = np.sqrt(draw.random((count, 1))), draw.random((count, 1))
    found: Points = (1 - root) * a[which] + root * (1 - other) * b[which] + root * other * c[which]
    return found
