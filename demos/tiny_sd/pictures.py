"""Coloured pictures of clothes and digits, and the sentences that describe them.

A grey 28x28 picture of Fashion-MNIST or MNIST becomes the mask and the shading of one object, which
is painted in one of 8 colors on one of 8 backgrounds. All random draws come from a generator that
the caller passes in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edge_train.bench.items import BACKGROUNDS, COLORS

CLOTHES = (
    "tshirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = CLOTHES + DIGITS
HELD_OUT = ("sneaker", "seven")  # never shown to any part of the pipeline
UNNAMED = ("bag", "three")  # shown, but never called by their name
NAMED = tuple(name for name in CLASSES if name not in HELD_OUT + UNNAMED)
ANYTHING = "thing"  # the word for an object without a name
SLOT = "item"  # the word whose embedding a picture may fill; see pretrain.py

PREFIXES = ("a", "a photo of a", "a picture of a")
WORDS = ("a", "photo", "picture", "of", "on", "background", "small", "an", "the", ANYTHING, SLOT)
VOCABULARY = tuple(dict.fromkeys((*WORDS, *COLORS, *BACKGROUNDS, *CLASSES)))

SIDE = 32  # pixels of a picture
SMALL_SHARE = 0.3
EMPTY_SHARE = 0.1  # captions left empty, for classifier-free guidance
SLOT_SHARE = 0.6  # captions whose noun is filled from the picture
ANYTHING_SHARE = 0.04  # captions of named classes that say `thing`
DROP_SHARE = 0.15  # captions without the color, and without the background
DARKEST_SHADE = 0.6  # brightness where the grey picture is black


@dataclass(frozen=True)
class Grey:
    """Pictures to compose from, uint8: grey `images` (n, 28, 28), or photos (n, side, side, 3).

    `labels` (n,) int64 is an index into `classes`.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...] = CLASSES

    def without(self, names: tuple[str, ...]) -> Grey:
        """Return the pictures whose class is not in `names`."""
        unwanted = torch.tensor([self.classes.index(name) for name in names])
        keep = ~torch.isin(self.labels, unwanted)
        return Grey(self.images[keep], self.labels[keep], self.classes)


@dataclass(frozen=True)
class Pictures:
    """Painted pictures with what is true about them.

    `pixels` is (n, 3, 32, 32) float32 in [-1, 1]. `source` says which grey picture each was made
    from; `label`, `color` and `background` index CLASSES, COLORS and BACKGROUNDS; `small` is bool.
    All five are (n,).
    """

    pixels: Tensor
    source: Tensor
    label: Tensor
    color: Tensor
    background: Tensor
    small: Tensor

    def bytes(self) -> np.ndarray:
        """Return the pictures as (n, 32, 32, 3) uint8."""
        return to_bytes(self.pixels)

    def pick(self, rows: Tensor) -> Pictures:
        """Return the pictures that `rows`, a mask or indices, selects."""
        return Pictures(*(getattr(self, field.name)[rows] for field in fields(self)))


def to_bytes(pixels: Tensor) -> np.ndarray:
    """Return (n, 3, h, w) values in [-1, 1] as (n, h, w, 3) uint8."""
    scaled = (pixels.clamp(-1, 1) * 0.5 + 0.5) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def load_grey(folder: Path, split: str) -> Grey:
    """Read both data sets; digit labels follow the ten clothes.

    Args:
      folder: holds `fashion_mnist.npz` and `mnist.npz`.
      split: "train" or "test".

    Raises:
      FileNotFoundError: one of the two files is missing.
    """
    images, labels = [], []
    for name, offset in (("fashion_mnist.npz", 0), ("mnist.npz", len(CLOTHES))):
        path = folder / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; pass the folder that holds it as --data.")
        with np.load(path) as arrays:
            images.append(torch.from_numpy(arrays[f"{split}_images"].astype(np.uint8)))
            labels.append(torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64)) + offset)
    return Grey(torch.cat(images), torch.cat(labels))


def paint(
    grey: Tensor, color: Tensor, background: Tensor, zoom: Tensor, center: Tensor, light: Tensor
) -> Tensor:
    """Paint one object a picture.

    Args:
      grey: (n, 28, 28) uint8; bright is object, black is not.
      color, background: (n,) indices.
      zoom: (n,) size of the object; 1 keeps its 28 pixels.
      center: (n, 2) pixels right and down from the middle of the picture.
      light: (n, 2) brightness factors of object and background.

    Returns:
      (n, 3, 32, 32) float32 in [-1, 1].
    """
    count = len(grey)
    frame = torch.zeros(count, 2, 3)
    frame[:, 0, 0] = frame[:, 1, 1] = SIDE / (28 * zoom)
    frame[:, :, 2] = -center / (14 * zoom[:, None])
    grid = functional.affine_grid(frame, [count, 1, SIDE, SIDE], align_corners=False)
    source = grey[:, None].float() / 255
    shade = functional.grid_sample(source, grid, align_corners=False)  # (n, 1, 32, 32)
    mask = (shade * 5).clamp(0, 1)
    object_rgb = torch.tensor(list(COLORS.values()))[color] * light[:, :1] / 255  # (n, 3)
    background_rgb = torch.tensor(list(BACKGROUNDS.values()))[background] * light[:, 1:] / 255
    shaded = object_rgb[:, :, None, None] * (DARKEST_SHADE + (1 - DARKEST_SHADE) * shade)
    picture = mask * shaded + (1 - mask) * background_rgb[:, :, None, None]
    return picture.clamp(0, 1) * 2 - 1


def draw_looks(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` pairs (color, background) of indices whose names differ."""
    pairs = torch.tensor(
        [
            (color, background)
            for color, color_name in enumerate(COLORS)
            for background, background_name in enumerate(BACKGROUNDS)
            if color_name != background_name
        ]
    )
    chosen = pairs[torch.randint(len(pairs), (count,), generator=generator)]
    return chosen[:, 0], chosen[:, 1]


def compose(grey: Grey, count: int, generator: torch.Generator) -> Pictures:
    """Draw `count` pictures: any object, look, size and place, with a light jitter."""
    source = torch.randint(len(grey.labels), (count,), generator=generator)
    color, background = draw_looks(count, generator)
    uniform = torch.rand(count, 6, generator=generator)
    small = uniform[:, 0] < SMALL_SHARE
    zoom = torch.where(small, 0.5 + 0.12 * uniform[:, 1], 0.95 + 0.1 * uniform[:, 1])
    reach = torch.where(small, (SIDE - 28 * zoom) / 2, torch.tensor(1.5))  # pixels
    center = (uniform[:, 2:4] * 2 - 1) * reach[:, None]
    light = 0.92 + 0.16 * uniform[:, 4:6]
    pixels = paint(grey.images[source], color, background, zoom, center, light)
    return Pictures(pixels, source, grey.labels[source], color, background, small)


def sentence(noun: str, color: str, background: str, small: bool, prefix: str) -> str:
    """Return a caption; an empty color or background is left out.

    >>> sentence("boot", "red", "blue", True, "a photo of a")
    'a photo of a small red boot on a blue background'
    >>> sentence("boot", "", "", False, "a")
    'a boot'
    """
    words = [prefix, "small" if small else "", color, noun]
    if background:
        words += ["on a", background, "background"]
    return " ".join(word for word in words if word)


def describe(
    label: Tensor,
    color: Tensor,
    background: Tensor,
    small: Tensor,
    generator: torch.Generator,
    nouns: dict[int, str],
) -> list[str]:
    """Draw one caption a picture (the first four arguments as in `Pictures`).

    The noun is SLOT in 60 % of them; else that of the class.

    Args:
      nouns: by label: the class word, or ANYTHING for unnamed classes.

    Raises:
      KeyError: a class is held out, and so has no caption.
    """
    color_names, background_names = tuple(COLORS), tuple(BACKGROUNDS)
    draws = torch.rand(len(label), 5, generator=generator).tolist()
    captions = []
    for row, (empty, noun_draw, prefix, no_color, no_background) in enumerate(draws):
        noun = nouns[int(label[row])]
        if noun_draw < SLOT_SHARE:
            noun = SLOT
        elif noun_draw > 1 - ANYTHING_SHARE:
            noun = ANYTHING
        caption = sentence(
            noun,
            "" if no_color < DROP_SHARE else color_names[int(color[row])],
            "" if no_background < DROP_SHARE else background_names[int(background[row])],
            bool(small[row]),
            PREFIXES[int(prefix * len(PREFIXES))],
        )
        captions.append("" if empty < EMPTY_SHARE else caption)
    return captions
