"""Colors of a picture: whatever a file stores becomes 8-bit sRGB, on white where it is clear."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from edge_train.errors import InputError

_MOST_PROFILE_BYTES = 4 * 2**20  # of a color profile; those of printing presses have 2 MB
_SAME = 3  # levels of 255; profiles that differ less from sRGB are other spellings of it
_SPACES = {"RGB": "RGB ", "RGBA": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
_AS_SRGB = "taken as sRGB"


def is_grey(image: Image.Image) -> bool:
    """Return whether a picture that was opened has no colors by its kind."""
    return image.mode in ("1", "L") or image.mode.startswith("I")


def eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture of mode L, RGB, RGBA or CMYK; of 16 bits the upper 8 are kept.

    Raises:
      InputError: its values have no range that says what is white.
    """
    if image.mode.startswith("I"):  # 16 or 32-bit grey, which Pillow would clip at 255
        values = np.asarray(image)
        if values.size and not 0 <= values.min() <= values.max() < 1 << 16:
            raise InputError(
                f"grey values from {values.min()} to {values.max()}, expected 16 bits; save it "
                "with 8 or 16 bits"
            )
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        key = image.info.get("transparency")
        if isinstance(key, int):
            clear = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
            return Image.merge("RGBA", (grey, grey, grey, clear))
        return grey
    if image.mode in ("F", "LAB", "HSV"):
        raise InputError(f"pixels of kind {image.mode}; save it as RGB with 8 or 16 bits")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Return a picture in sRGB, mode L, RGB or RGBA, from one of mode L, RGB, RGBA or CMYK.

    Without a profile CMYK is turned into RGB by the plain formula. A profile that is damaged, or
    is of other colors than the picture, is left aside, and so is one that says sRGB.

    Args:
      profile: the ICC profile of the file.
      notes: gets what was done, in words.
    """
    transform = None
    if profile:
        transform, note = _transform(profile, image.mode)
        notes += [note] if note else []
    if transform is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    if image.mode != "RGBA":
        return _applied(transform, image)
    colors = _applied(transform, image.convert("RGB"))  # drops alpha, keeps the colors
    colors.putalpha(image.getchannel("A"))
    return colors


def laid_on(ground: str, image: Image.Image, notes: list[str]) -> Image.Image:
    """Return an opaque picture: RGBA is laid on a color."""
    if image.mode != "RGBA":
        return image
    notes.append(f"transparency on {ground}")
    image.paste(ground, mask=Image.eval(image.getchannel("A"), lambda alpha: 255 - alpha))
    return image.convert("RGB")


def _applied(transform: Any, image: Image.Image) -> Image.Image:
    found = ImageCms.applyTransform(image, transform)
    return found if found is not None else image


@lru_cache(maxsize=4)  # a folder's pictures come from few cameras
def _transform(profile: bytes, mode: str) -> tuple[Any, str | None]:
    """Return what turns a picture into sRGB, None where nothing does, and a word about it."""
    if len(profile) > _MOST_PROFILE_BYTES:
        return None, f"color profile too large, {_AS_SRGB}"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None, None  # as in grey pictures that kept the profile of their colored source
        stored = "RGB" if mode == "RGBA" else mode
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, stored, "RGB")
        probe = _probe(stored)
        change = np.asarray(_applied(transform, probe), int) - np.asarray(probe.convert("RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError):
        return None, f"color profile damaged, {_AS_SRGB}"
    if stored != "CMYK" and np.abs(change).max() <= _SAME:
        return None, None
    return transform, "colors turned into sRGB"


def _probe(mode: str) -> Image.Image:
    """Return colors from all over the cube, a pixel each; greys for grey."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 6).astype(np.uint8)
    cube = np.stack(np.meshgrid(*[levels] * len(mode)), axis=-1).reshape(1, -1, len(mode))
    return Image.fromarray(cube, mode if mode == "CMYK" else None)
