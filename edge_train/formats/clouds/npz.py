"""Reader of clouds in `.npz` archives: one of (points, 3) or many of (clouds, points, 3)."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.formats.clouds.parts import DamagedCloud

_NAMES = ("points", "clouds", "xyz", "cloud", "pos")
_MOST_BYTES = 2_000_000_000  # of an array, unpacked


def count(path: Path) -> int:
    """Return how many clouds there are, by the header of their array.

    Raises:
      DamagedCloud: there is no such array, or the file is damaged.
    """
    shape = _array(path, read=False)
    return shape[0] if len(shape) == 3 else 1


def clouds(path: Path) -> Iterator[NDArray[np.float64]]:
    """Yield every cloud, (points, 3).

    Raises:
      DamagedCloud: there is no such array, or the file is damaged.
    """
    found = _array(path, read=True)
    for cloud in found if found.ndim == 3 else found[None]:
        yield cloud[:, :3].astype(np.float64)


def _array(path: Path, *, read: bool) -> Any:
    """Return the array of points, or its shape alone."""
    try:
        with (
            open(path, "rb") as file,
            np.load(file, allow_pickle=False) as arrays,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of headers by Python 2
            name = next((one for one in _NAMES if one in arrays.files), None)
            if name is None and len(arrays.files) == 1:
                name = arrays.files[0]
            if name is None:
                has = ", ".join(arrays.files[:5]) or "nothing"
                raise DamagedCloud(f"holds {has}; expected an array named points or clouds.")
            shape = _shape(arrays, name)
            return np.asarray(arrays[name]) if read else shape
    except (DamagedCloud, MemoryError, OSError):
        raise
    except Exception as error:  # of a damaged archive or header, NumPy raises what it meets
        raise DamagedCloud(f"damaged or not an npz file ({error}).") from error


def _shape(arrays: Any, name: str) -> tuple[int, ...]:
    """Return the shape of an array whose header tells the truth."""
    listed = arrays.zip.namelist()
    member = arrays.zip.getinfo(f"{name}.npy" if f"{name}.npy" in listed else name)
    with arrays.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        reads = {(1, 0): np.lib.format.read_array_header_1_0}
        shape, _, kind = reads.get(version, np.lib.format.read_array_header_2_0)(file)
        left = member.file_size - file.tell()
    size = math.prod(shape) * kind.itemsize
    if kind.hasobject or kind.kind not in "fiu":
        raise DamagedCloud(f"{name} is {kind}, expected numbers.")
    if min((0, *shape)) < 0 or size > left:
        raise DamagedCloud(f"{name} says it is of shape {shape}, but has {left} bytes.")
    if size > _MOST_BYTES:
        raise DamagedCloud(f"{name} has {size:,} bytes, at most {_MOST_BYTES:,} are read.")
    if len(shape) not in (2, 3) or shape[-1] < 3:
        raise DamagedCloud(
            f"{name} is of shape {shape}, expected (points, 3) or (clouds, points, 3)."
        )
    return tuple(shape)
