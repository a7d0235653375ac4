"""Features of the pictures that the bench of image heads compares on: CIFAR, photos."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.labeled_pictures import labeled_pictures
from edge_train.formats.pictures import Fit, read_picture
from edge_train.tasks.images.backbone import Backbone, Features
from edge_train.tasks.images.views import whole

CIFAR, PHOTOS = "cifar10_subset_jpeg.npz", "dreambooth"
Labels = NDArray[np.int64]
Set = tuple[Array, Labels]


def features_of(data: Path, backbone: Backbone, out: Path, samples: int | None) -> dict[str, Set]:
    """Return features and classes of `train` and `test` of CIFAR, and of the `photos`.

    They are computed once and kept in `out`, by the backbone's hash.

    Args:
      data: the folder with both.
      samples: of each part of CIFAR at most; None: all.

    Raises:
      InputError: one is missing.
    """
    path = out / f"features-{backbone.sha256[:16]}-{samples or 'all'}.npz"
    if not path.is_file():
        for name in (CIFAR, PHOTOS):
            if not (data / name).exists():
                raise InputError(f"--data {data}: there is no {name} in it; see the bench's page.")
        network = backbone.opened(1)
        parts = {
            part: _cifar(data / CIFAR, part, network, backbone.side, samples)
            for part in ("train", "test")
        }
        parts["photos"] = _photos(data / PHOTOS, network, backbone.side)
        arrays: dict[str, Any] = {
            f"{name}_{n}": values for name, pair in parts.items() for n, values in enumerate(pair)
        }
        out.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
    with np.load(path, allow_pickle=False) as kept:
        return {
            name: (kept[f"{name}_0"], kept[f"{name}_1"]) for name in ("train", "test", "photos")
        }


def _cifar(path: Path, part: str, network: Features, side: int, samples: int | None) -> Set:
    with np.load(path, allow_pickle=False) as arrays:
        content, offsets = arrays[f"{part}_jpeg"], arrays[f"{part}_offsets"]
        labels = arrays[f"{part}_labels"].astype(np.int64)[:samples]
    fit = Fit((side, side), crop=True, smooth=True)
    found = []
    for start, end in list(pairwise(offsets.tolist()))[: len(labels)]:
        pixels = read_picture(content[start:end].tobytes(), fit, name=str(path)).pixels
        found.append(network(pixels[None])[0])
    return np.stack(found), labels


def _photos(folder: Path, network: Features, side: int) -> Set:
    listed = labeled_pictures(folder)
    numbers = {name: number for number, name in enumerate(listed.names)}
    files = listed.parts["train"]
    found = np.concatenate([network(whole(file, side)[None]) for file, _ in files])
    return found, np.array([numbers[label] for _, label in files])
