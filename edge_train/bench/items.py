"""Single items of Fashion-MNIST in colors: five photos of one to learn from, all 10,000 to tell.

A picture is painted as `demos/tiny_sd/pictures.py` paints it, at full size and shifted by whole
pixels, so that no engine is needed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_train.errors import InputError
from edge_train.rng import Key

Pixels = NDArray[np.uint8]  # (pictures, 32, 32, 3)
Grey = NDArray[np.uint8]  # (items, 28, 28)

CLASSES = (
    *("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag"),
    "boot",
)
COLORS = {
    "red": (225, 40, 40),
    "brown": (140, 85, 45),
    "yellow": (245, 225, 50),
    "green": (45, 170, 70),
    "blue": (45, 85, 225),
    "purple": (140, 60, 190),
    "pink": (250, 140, 190),
    "white": (245, 245, 245),
}
BACKGROUNDS = {
    "black": (25, 25, 25),
    "gray": (128, 128, 128),
    "white": (245, 245, 245),
    "red": (225, 40, 40),
    "yellow": (245, 225, 50),
    "green": (45, 170, 70),
    "blue": (45, 85, 225),
    "purple": (140, 60, 190),
}
SIDE = 32  # pixels
_DARKEST = 0.6  # brightness where the grey picture is black


@dataclass(frozen=True)
class Look:
    """A color and a background, by name."""

    color: str
    background: str

    @property
    def prompt(self) -> str:
        """What asks for this look; `{}` is the item."""
        return f"a photo of a {self.color} {{}} on a {self.background} background"


PHOTO_LOOKS = (
    Look("brown", "gray"),
    Look("yellow", "purple"),
    Look("green", "white"),
    Look("blue", "yellow"),
    Look("pink", "green"),
)
SCORED_LOOKS = (Look("white", "black"), Look("red", "blue"))  # that no photo shows


def paint(grey: Grey, look: Look, shift: tuple[int, int] = (0, 0)) -> Pixels:
    """Return items painted in a look.

    Args:
      shift: pixels right and down, -2 to 2.

    Raises:
      ValueError: the item would leave the picture.
    """
    if max(map(abs, shift)) > 2:
        raise ValueError(f"shift {shift}: 2 pixels at most")
    right, down = shift
    room = ((0, 0), (2 + down, 2 - down), (2 + right, 2 - right))
    shade = np.pad(grey, room).astype(np.float32)[..., None] / 255
    mask = np.clip(5 * shade, 0, 1)
    item = np.array(COLORS[look.color], np.float32) / 255 * (_DARKEST + (1 - _DARKEST) * shade)
    background = np.array(BACKGROUNDS[look.background], np.float32) / 255
    picture = mask * item + (1 - mask) * background
    return np.rint(255 * picture).astype(np.uint8)


def photos_of(item: Grey) -> Pixels:
    """Return five photos of one item (28, 28), in five looks, each a pixel elsewhere."""
    shifts = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    return np.concatenate(
        [paint(item[None], look, s) for look, s in zip(PHOTO_LOOKS, shifts, strict=True)]
    )


def write_photos(item: Grey, folder: Path) -> Path:
    """Write the five photos of an item with their captions; return the folder."""
    return _written(photos_of(item), folder)


def write_class_photos(items: Grey, folder: Path) -> Path:
    """Write a photo of each of five items of one class, in five looks; return the folder."""
    looks = zip(items, PHOTO_LOOKS, strict=True)
    return _written(np.concatenate([paint(item[None], look) for item, look in looks]), folder)


def _written(pictures: Pixels, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (picture, look) in enumerate(zip(pictures, PHOTO_LOOKS, strict=True), 1):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(look.prompt + "\n", "utf-8")
    return folder


def read_items(data: Path, split: str) -> tuple[Grey, NDArray[np.int64]]:
    """Return the items of Fashion-MNIST and their classes, an index into CLASSES.

    Args:
      data: the folder of `fashion_mnist.npz`.
      split: "train" or "test".

    Raises:
      InputError: the file is missing or is not that of `demos/tiny_sd`.
    """
    path = data / "fashion_mnist.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.int64)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; name the folder that holds it: --data.") from error
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path} has no {split} pictures; name another folder: --data.") from error


def choose(labels: NDArray[np.int64], classes: Iterable[str]) -> dict[str, int]:
    """Return one item of each class by name, always the same: its row."""
    return {
        name: int(Key(0, 0).generator("item", name).choice(np.flatnonzero(labels == number)))
        for name in classes
        for number in [CLASSES.index(name)]
    }
