"""The one reader of pictures: a file becomes upright 8-bit sRGB of a size, or one sentence."""

import importlib
import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from edge_train.errors import InputError
from edge_train.formats.picture_colors import eight_bits, is_grey, laid_on, to_srgb
from edge_train.formats.picture_folders import shown

Pixels = NDArray[np.uint8]  # (height, width, 3), or (height, width, 1) where grey was asked for

MAX_MEGAPIXELS = 64  # above any phone's default; a PNG of this size takes 256 MB while it is read
HEIF_EXTRA = "pip install 'edge-train[heif]'"

# A JPEG with more is decoded smaller at once, where that leaves this many times the wanted side.
_DRAFT = 2
_MOST_SCAN_PIXELS = 32 * MAX_MEGAPIXELS * 10**6  # of a progressive JPEG; cameras write 10 scans
_LOOK_BYTES = 64
_REDUCING_GAP = 3.0  # box filter down to 3 times the target, LANCZOS from there; no visible loss
_T = Image.Transpose
_UPRIGHT = {2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM, 5: _T.TRANSPOSE}
_UPRIGHT |= {6: _T.ROTATE_270, 7: _T.TRANSVERSE, 8: _T.ROTATE_90}  # by EXIF orientation
_LYING = (_T.TRANSPOSE, _T.ROTATE_270, _T.TRANSVERSE, _T.ROTATE_90)  # exchange width and height
# What a file really is, whatever its name says. Only the plugin that is needed is loaded: Pillow
# would load all of its forty to look for one, and keep 3 MB.
_PLUGINS = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
}
_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"
)
_OTHERS = {  # what is found in the place of pictures, and what to do
    b"version https://git-lfs": "only a pointer of Git LFS; fetch it with git lfs pull",
    b"<!doctype": "a web page, as a failed download leaves it",
    b"<html": "a web page, as a failed download leaves it",
    b"<?xml": "an XML file; of drawings save a PNG",
    b"<svg": "an SVG drawing; save it as PNG",
    b"%pdf": "a PDF; save it as PNG",
    b"8bps": "a Photoshop document; save it as PNG",
    b"\xff\x0a": "a JPEG XL picture; save it as JPEG or PNG",
    b"\0\0\0\x0cjxl ": "a JPEG XL picture; save it as JPEG or PNG",
    b"\0\0\0\x0cjp  ": "a JPEG 2000 picture; save it as JPEG or PNG",
}
KINDS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIF"


@dataclass(frozen=True)
class Fit:
    """How a picture comes to its size.

    Attributes:
      size: (width, height) of the result, upright.
      crop: take the middle of the picture, as large as it can be in that shape; else all of it is
        stretched to that shape.
      smooth: LANCZOS after a box filter down to three times the size, for photos; else bilinear.
      draft_megapixels: a JPEG with more pixels is decoded at down to 1/8 of its side.
      ground: `white` or `black`, what a transparent picture is laid on.
    """

    size: tuple[int, int]
    crop: bool = False
    smooth: bool = False
    draft_megapixels: float = 16
    ground: str = "white"


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels of a picture, and what was done to it in words; `size` is that of the file, upright.

    `kept` is the share of the area that a crop left.
    """

    pixels: Pixels
    size: tuple[int, int]
    kept: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """What the first bytes of a picture say: its size upright, and whether it is grey."""

    size: tuple[int, int]
    grey: bool


def look_at(path: Path) -> Look:
    """Return the size and kind of a picture without decoding it.

    Raises:
      InputError: it is no picture that can be read, or has too many pixels.
    """
    with _reading(path), _opened(path) as image:
        late = image.format == "PNG" and "exif" not in image.info  # else all of it is decoded
        turn = None if late or image.format == "TIFF" else _turn(image, [])
        return Look(_turned(image.size, turn), is_grey(image))


def read_picture(
    source: Path | bytes, fit: Fit | None = None, *, grey: bool = False, name: str = ""
) -> Picture:
    """Return a picture, upright by its EXIF tag, in sRGB, on its ground where it is transparent.

    Of 16 bits the upper 8 are kept; CMYK goes through its profile, or the plain formula; of an
    animation or a file of several pictures the first one is taken.

    Args:
      source: a file, or what it holds.
      fit: size of the result; None: as it is.
      grey: return one channel.
      name: what an error calls bytes.

    Raises:
      InputError: it cannot be read, or has more than 64 megapixels; one sentence.

    Memory:
      JPEG of more than `fit.draft_megapixels` is decoded at down to 1/8 of its side: 20 MB for 48
      megapixels. A progressive one takes 3 bytes a pixel, PNG 4, with transparency 12, others 16.
    """
    with _reading(source, name), _opened(source) as image:
        return _decoded(image, fit, grey)


@contextmanager
def _reading(source: Path | bytes, name: str = "") -> Iterator[None]:
    """Turn whatever a decoder raises into one sentence that names the file."""
    what = shown(source) if isinstance(source, Path) else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata we do not use, and sizes we check
            yield
    except MemoryError:
        raise
    except InputError as error:
        raise _refused(what, str(error)) from error
    except Exception as error:  # on a damaged file, decoders raise whatever they stumble over
        reason = f"damaged, cut short, or not a {KINDS} picture"
        if isinstance(error, Image.DecompressionBombError):  # "Image size (N pixels) exceeds ..."
            size = str(error).partition(" exceeds")[0]
            reason = f"{size} is far above the limit of {MAX_MEGAPIXELS} megapixels"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise _refused(what, reason) from error


def _refused(what: str, reason: str) -> InputError:
    return InputError(
        f"{what}: cannot be read ({reason}); remove it from the folder or replace it."
    )


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """Yield a picture whose header was read and whose size was checked."""
    if isinstance(source, Path):
        if not os.path.lexists(source):
            raise InputError("there is no such file")
        if not source.is_file():  # opening a pipe would wait forever
            raise InputError("a broken link or no ordinary file")
        if source.stat().st_size == 0:
            raise InputError("the file is empty")
    with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        kind = _kind(file.read(_LOOK_BYTES))
        file.seek(0)
        with _plugin(kind, file) as image:
            width, height = image.size
            if width * height > MAX_MEGAPIXELS * 10**6:
                raise InputError(
                    f"{width}x{height} is {width * height / 1e6:.1f} megapixels, the limit is "
                    f"{MAX_MEGAPIXELS}; save a smaller copy"
                )
            if kind == "JPEG":
                _check_scans(file, width * height)
            yield image


def _kind(start: bytes) -> str:
    """Return what a file is by its first bytes.

    Raises:
      InputError: it is none that is read.
    """
    for magic, kind in _STARTS.items():
        if start.startswith(magic):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp":
        brands = [start[8:12], *(start[at : at + 4] for at in range(16, len(start), 4))]
        length = int.from_bytes(start[:4], "big")
        found = [_BRANDS[brand] for brand in brands[: max(length // 4 - 3, 1)] if brand in _BRANDS]
        if found:
            return "AVIF" if "AVIF" in found else "HEIF"
    for magic, what in _OTHERS.items():
        if start.lstrip().lower().startswith(magic) or start.lower().startswith(magic):
            raise InputError(what)
    raise InputError(f"damaged, cut short, or not a {KINDS} picture")


def _plugin(kind: str, file: Any) -> Any:
    """Return the picture in an open file, read by the plugin of its kind."""
    if kind == "HEIF":
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise InputError(
                f"a HEIF picture; {HEIF_EXTRA} reads it, or save it as JPEG"
            ) from error
        image = HeifImageFile(file)
        if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or 0):
            raise Image.DecompressionBombError(f"Image size ({image.width * image.height} pixels)")
        return image
    try:
        importlib.import_module(_PLUGINS[kind])
    except ImportError as error:
        raise InputError(f"this Pillow has no {kind}; pip install -U pillow") from error
    if kind == "AVIF" and "AVIF" not in Image.OPEN:  # built without its decoder
        raise InputError("this Pillow was built without AVIF; save it as JPEG")
    return Image.open(file, formats=(kind,))


def _check_scans(file: Any, pixels: int) -> None:
    """Refuse a JPEG that goes over its pixels so often that it was made to take forever."""
    place, scans, last = file.tell(), 0, b""
    file.seek(0)
    while part := file.read(1 << 20):
        scans += (last + part).count(b"\xff\xda")
        last = part[-1:]
    file.seek(place)
    if scans * pixels > _MOST_SCAN_PIXELS:
        raise InputError(f"a JPEG of {scans} scans of {pixels / 1e6:.1f} megapixels")


def _decoded(image: Image.Image, fit: Fit | None, grey: bool) -> Picture:
    size, notes, kept = image.size, list[str](), 1.0
    if getattr(image, "is_animated", False):
        notes.append("first picture of several")
    pixels = size[0] * size[1]
    if fit and image.format in ("JPEG", "MPO") and pixels > fit.draft_megapixels * 10**6:
        side = _DRAFT * max(fit.size)
        image.draft(None, (side, side))
    image.load()
    turn = _turn(image, notes)
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes):
        profile = None
    if fit is None:
        fitted = _plain(image, profile, notes)
    else:
        target = _turned(fit.size, turn)
        box = (0, 0, *image.size)
        if fit.crop:
            box, whole = _middle(image.size, target), _middle(size, target)
            kept = (whole[2] - whole[0]) * (whole[3] - whole[1]) / pixels
        fitted = _resized(image, target, box, fit.smooth, profile, notes)
    if image.mode != "CMYK":  # whose profile was needed before
        fitted = to_srgb(fitted, profile, notes)
    fitted = laid_on(fit.ground if fit else "white", fitted, notes)
    if turn is not None:
        notes.append("rotated by EXIF")
        fitted = fitted.transpose(turn)
    found = np.array(fitted.convert("L" if grey else "RGB"))
    return Picture(
        found.reshape(*found.shape[:2], -1), _turned(size, turn), kept, tuple(dict.fromkeys(notes))
    )


def _resized(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    smooth: bool,
    profile: bytes | None,
    notes: list[str],
) -> Image.Image:
    """Return part of a picture at a size, mode L or RGB; RGBA if transparent."""
    kernel = Image.Resampling.LANCZOS if smooth else Image.Resampling.BILINEAR
    gap = _REDUCING_GAP if smooth else None
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.resize(size, kernel, box, gap)
    return _plain(image.crop(box), profile, notes).resize(size, kernel, None, gap)


def _plain(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Return a picture of mode L, RGB or RGBA."""
    found = eight_bits(image)
    return to_srgb(found, profile, notes) if found.mode == "CMYK" else found


def _middle(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the largest box of a shape in the middle of a picture: left, top, right, bottom."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    width, height = (max(round(scale * side), 1) for side in shape)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _turned(size: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    return (size[1], size[0]) if turn in _LYING else size


def _turn(image: Image.Image, notes: list[str]) -> Image.Transpose | None:
    """Return what brings a picture upright by its EXIF tag, None where it is."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error):
        notes.append("EXIF damaged, taken as upright")  # only the tags are
        return None
