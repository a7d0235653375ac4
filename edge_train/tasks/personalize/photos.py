"""Photos: a folder of pictures becomes square arrays, and every file in it is accounted for."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from edge_train.errors import InputError

Pixels = NDArray[np.uint8]  # (resolution, resolution, 3)

MAX_PHOTOS = 50  # a token is learned from a handful; more is a data set in the wrong place
MAX_MEGAPIXELS = 64  # above any phone's default; a PNG of this size takes 256 MB while it is read

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# What a file really is, whatever its name says. Their plugins are named here, or Pillow would load
# all of its forty to look for them, and keep 3 MB.
_READERS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
)
_FORMATS = tuple(reader.format for reader in _READERS)
_DRAFT = 2  # JPEG may be decoded smaller, to no less than this many times the resolution
_REDUCING_GAP = 3.0  # box filter down to 3 times the target, LANCZOS from there; no visible loss
_T = Image.Transpose
_UPRIGHT = {2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM, 5: _T.TRANSPOSE}
_UPRIGHT |= {6: _T.ROTATE_270, 7: _T.TRANSVERSE, 8: _T.ROTATE_90}  # by EXIF orientation


@dataclass(frozen=True, eq=False)
class Photo:
    """One training photo; `note` says in words what was done to it."""

    name: str
    pixels: Pixels
    caption: str | None
    note: str


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """The photos of a folder by name, and (file name, reason) of whatever was left aside."""

    photos: tuple[Photo, ...]
    skipped: tuple[tuple[str, str], ...]


def load_photos(folder: Path, resolution: int) -> PhotoSet:
    """Read the photos of a folder, sorted by name, with their captions.

    A photo is turned upright by its EXIF tag, laid on white where it is transparent, cropped to its
    central square and resized. A text file of the same stem is its caption. A file that claims to
    be a photo and cannot be read is an error: nobody should train on fewer photos than they gave.

    Args:
      folder: 1 to 50 files `.jpg`, `.jpeg`, `.png` or `.webp`; sub-folders are not read.
      resolution: side of the result in pixels, > 0.

    Raises:
      InputError: the folder, a photo or a caption cannot be used.

    Memory:
      One photo at a time. JPEG is decoded at down to 1/8 of its side: 20 MB for 48 megapixels;
      a progressive one takes 3 bytes a pixel, PNG 4, with transparency 12, WebP 16.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
        skipped = {path: reason for path in entries if (reason := _reason_to_skip(path))}
    except OSError as error:
        raise InputError(
            f"{_shown(folder)}: {error.strerror}; name a folder with 1 to {MAX_PHOTOS} photos."
        ) from error
    files = [path for path in entries if path not in skipped]
    texts = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    paths = [path for path in files if path.suffix.lower() in _SUFFIXES]
    if not paths:
        raise InputError(
            f"{_shown(folder)}: no photos among its {len(entries)} files; put 3 to 10 files named "
            ".jpg, .jpeg, .png or .webp there."
        )
    if len(paths) > MAX_PHOTOS:
        raise InputError(
            f"{_shown(folder)}: {len(paths)} photos, the limit is {MAX_PHOTOS}; move "
            f"{len(paths) - MAX_PHOTOS} of them to another folder."
        )
    stems = {path.stem for path in paths}
    captions = {stem: _caption(text) for stem, text in texts.items() if stem in stems}
    skipped |= {texts[stem]: remark for stem, (_, remark) in captions.items() if remark}
    others = set(files) - set(paths) - {texts[stem] for stem in captions}
    skipped |= dict.fromkeys(others, "not a caption; one has the same name as its photo")
    photos = (_read(path, resolution, captions.get(path.stem, (None,))[0]) for path in paths)
    return PhotoSet(tuple(photos), tuple((_shown(p.name), skipped[p]) for p in sorted(skipped)))


def flip(pixels: Pixels) -> Pixels:
    """Return the mirror image, left and right exchanged."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _shown(path: Path | str) -> str:
    """Return a path as printable text, also where its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def _reason_to_skip(path: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden file"
    if path.is_dir():
        return "folder; photos in sub-folders are not read"
    known = path.suffix.lower() in (*_SUFFIXES, ".txt")
    return None if known else "not a photo; only .jpg, .jpeg, .png and .webp are read"


def _caption(path: Path) -> tuple[str | None, str | None]:
    """Return the first line with words in it, and a remark if that was not the whole file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"{_shown(path)}: the caption cannot be read ({reason}); remove it or save it as UTF-8."
        ) from error
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not lines:
        return None, "empty caption; the photo is used without one"
    return lines[0], "only its first line is used" if lines[1:] else None


def _read(path: Path, resolution: int, caption: str | None) -> Photo:
    """Return one photo, or say in one sentence why it cannot be used."""
    try:
        if not path.is_file():  # opening a pipe would wait forever
            raise OSError(0, "a broken link or no ordinary file")
        if path.stat().st_size == 0:
            raise OSError(0, "the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata we do not use, and sizes we check
            return _decode(path, resolution, caption)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # on a damaged file, decoders raise whatever they stumble over
        reason = "damaged, cut short, or not a JPEG, PNG or WebP picture"
        if isinstance(error, Image.DecompressionBombError):  # "Image size (N pixels) exceeds ..."
            size = str(error).partition(" exceeds")[0]
            reason = f"{size} is far above the limit of {MAX_MEGAPIXELS} megapixels"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise InputError(
            f"{_shown(path)}: cannot be read ({reason}); remove it from the folder or replace it."
        ) from error


def _decode(path: Path, resolution: int, caption: str | None) -> Photo:
    with Image.open(path, formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_MEGAPIXELS * 10**6:
            raise InputError(
                f"{_shown(path)}: {width}x{height} is {width * height / 1e6:.1f} megapixels, the "
                f"limit is {MAX_MEGAPIXELS}; save a smaller copy, or remove it from the folder."
            )
        notes = [f"{width}x{height}"]
        if getattr(image, "n_frames", 1) > 1:
            notes.append("first picture of several")
        image.draft(None, (_DRAFT * resolution, _DRAFT * resolution))
        square = _central_square(image, resolution)
        try:
            turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        except SyntaxError:  # only the tags are damaged
            turn = None
            notes.append("EXIF damaged, taken as upright")
    if square.mode == "RGBA":
        notes.append("transparency on white")
        square.paste("white", mask=Image.eval(square.getchannel("A"), lambda alpha: 255 - alpha))
    if turn is not None:
        notes.append("rotated by EXIF")
        square = square.transpose(turn)
    side = min(width, height)
    if width != height:
        notes.append(f"centre crop {side}x{side}")
    if side != resolution:
        verb = "resized" if side > resolution else "small, enlarged"
        notes.append(f"{verb} to {resolution}x{resolution}")
    pixels, note = np.array(square.convert("RGB")), ", ".join(notes)
    return Photo(_shown(path.name), pixels, caption, note)


def _central_square(image: Image.Image, resolution: int) -> Image.Image:
    """Return the middle of the picture at the wanted size, mode L or RGB; RGBA if transparent."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    size = (resolution, resolution)
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.resize(size, Image.Resampling.LANCZOS, box, _REDUCING_GAP)
    square = image.crop(box)
    if square.mode.startswith("I"):  # 16-bit grayscale; Pillow would clip it at 255
        square = Image.fromarray((np.asarray(square) >> 8).astype(np.uint8))
    square = square.convert("RGBA" if square.has_transparency_data else "RGB")
    return square.resize(size, Image.Resampling.LANCZOS, None, _REDUCING_GAP)
