"""Photos of things: CIFAR-10 at 32x32, with the colors that their middle and their edge have.

The sentences are those of the clothes, so that the same words can be asked for: the color is the
named one nearest to the mean of the middle quarter, the background's that of the edge. No licence
is stated for these photos: what is trained on them is for experiments and is not shipped.
"""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pictures import BACKGROUNDS, COLORS, SIDE, Grey, Pictures

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"),
    "truck",
)
HELD_OUT = ("horse",)  # never shown to any part of the pipeline
UNNAMED = ("frog",)  # shown, but never called by its name
_SHIFT = 2  # pixels that a photo is moved, at most
_EDGE = 4  # pixels of a photo's edge that are its background


def load_photos(folder: Path, split: str) -> Grey:
    """Read the photos: `images` (n, 32, 32, 3) uint8.

    Args:
      folder: holds `cifar10_subset_jpeg.npz`.
      split: "train" or "test".

    Raises:
      FileNotFoundError: the file is missing.
    """
    path = folder / "cifar10_subset_jpeg.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; pass the folder that holds it as --data.")
    with np.load(path) as arrays:
        data, ends = arrays[f"{split}_jpeg"], arrays[f"{split}_offsets"]
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))
        photos = [
            np.asarray(Image.open(io.BytesIO(data[start:end].tobytes())).convert("RGB"))
            for start, end in pairwise(ends)
        ]
    return Grey(torch.from_numpy(np.stack(photos)), labels, CLASSES)


def compose_photos(photos: Grey, count: int, generator: torch.Generator) -> Pictures:
    """Draw `count` photos, mirrored half of the time and moved by a pixel or two."""
    source = torch.randint(len(photos.labels), (count,), generator=generator)
    pixels = photos.images[source].permute(0, 3, 1, 2).float() / 127.5 - 1
    mirrored = torch.rand(count, generator=generator) < 0.5
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    room = functional.pad(pixels, (_SHIFT,) * 4, mode="replicate")
    corner = torch.randint(2 * _SHIFT + 1, (count, 2), generator=generator).tolist()
    moved = torch.stack(
        [own[:, y : y + SIDE, x : x + SIDE] for own, (y, x) in zip(room, corner, strict=True)]
    )
    small = torch.zeros(count, dtype=torch.bool)
    looks = looks_of(moved)
    return Pictures(moved, source, photos.labels[source], looks[0], looks[1], small)


def looks_of(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the named colors nearest to middle and edge of (n, 3, 32, 32)."""
    quarter = slice(SIDE // 4, 3 * SIDE // 4)
    edge = torch.ones(SIDE, SIDE, dtype=torch.bool)
    edge[_EDGE:-_EDGE, _EDGE:-_EDGE] = False
    middle = pixels[:, :, quarter, quarter].mean((2, 3))
    return _nearest(middle, COLORS), _nearest(pixels[:, :, edge].mean(2), BACKGROUNDS)


def _nearest(rgb: Tensor, names: dict[str, tuple[int, int, int]]) -> Tensor:
    return torch.cdist(rgb, torch.tensor(list(names.values())) / 127.5 - 1).argmin(1)
