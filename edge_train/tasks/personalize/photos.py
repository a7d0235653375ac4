"""Photos: a folder of pictures becomes arrays, and every file in it is accounted for."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path

import numpy as np

from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.left_aside import lines_of, some_of
from edge_train.formats.picture_folders import (
    CAPTIONS,
    SHOWN_SUFFIXES,
    Listing,
    PictureRoot,
    duplicates,
    is_condition,
    is_photo,
    is_picture,
    photo_of_mask,
    repeats_of,
    shown,
)
from edge_train.formats.picture_tables import TEXTS, read_column
from edge_train.formats.pictures import Fit, Pixels, look_at, read_picture
from edge_train.formats.tables.coding import coding_of, opened_text
from edge_train.tasks.personalize.buckets import nearest
from edge_train.tasks.personalize.named_things import classes_of, said_of_things
from edge_train.tasks.personalize.weights import middle_size, read_mask

MAX_PHOTOS = 50  # a token is learned from a handful; more is a data set in the wrong place
_MOST_CAPTION_BYTES = 1 << 16
_NOISE = 8  # of 255: what a covered lens and JPEG leave of one color
_CONDITION = "a condition of OneTrainer's, which no model here is given beside its prompt"
_SUB_FOLDER = "a sub-folder; those beside photos are not read"
_OF_MASKS = "a sub-folder; masks are read beside their photo, as photo.mask.png beside photo.jpg"
_WORTH_SAYING = 0.02  # share of a photo's area; a crop of less is not


@dataclass(frozen=True, eq=False)
class Photo:
    """One training photo; `note` says in words what was done to it.

    `repeats` is how often it is taken for once that another one is; `kept` is the share of its
    area that the crop left. `mask` (height, width), where there is one, says from 0 to 1 how much
    each pixel counts. `size` is that of the file, (width, height), upright, `mask_size` that of
    the mask's.
    """

    name: str
    pixels: Pixels
    caption: str | None
    note: str
    repeats: int = 1
    kept: float = 1.0
    mask: Array | None = None
    size: tuple[int, int] = (0, 0)
    mask_size: tuple[int, int] | None = None

    @property
    def trained(self) -> tuple[int, int]:
        """The size (width, height) that it was brought to."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """The photos of a folder by name, and what was left aside or cut, a line each."""

    photos: tuple[Photo, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A folder with photos: what lies there without masks, the mask of each photo, its repeats."""

    listing: Listing
    masks: Mapping[Path, Path]
    repeats: int = 1


def load_photos(
    folder: Path,
    resolution: int,
    most: int = MAX_PHOTOS,
    sizes: Sequence[tuple[int, int]] = (),
    offered: Sequence[tuple[int, int]] = (),
) -> PhotoSet:
    """Read the photos of a folder, sorted by name, with their captions.

    A photo is turned upright by its EXIF tag, laid on white where it is transparent, cropped to its
    central square and resized. A text file of the same stem, `.txt` or `.caption`, is its caption;
    without one, its line in the folder's `metadata.csv` or `metadata.jsonl` (columns `file_name`
    and `text`). A folder without photos may have sub-folders as kohya's trainer wants them,
    `10_name word`: each is read, and its number says how often its photos are taken. A file that
    claims to be a photo and cannot be read is an error: nobody should train on fewer photos than
    they gave. `photo.mask.png` beside `photo.jpg` is no photo: white in it counts, black does not;
    nor is `photo-masklabel.png`, as OneTrainer has it. All photos of that name have it. Its
    `photo-condlabel.png` is left aside.

    Args:
      folder: 1 to 50 pictures; other sub-folders are not read.
      resolution: side of the result in pixels, > 0.
      most: pictures that are taken.
      sizes: (width, height) that a photo may get, that of the nearest shape; none: a square.
      offered: those that `--buckets` would allow, for a sentence; none where it cannot be used.

    Raises:
      InputError: the folder, a photo or a caption cannot be used.

    Memory:
      One photo at a time; see `read_picture`.
    """
    root = PictureRoot(folder)
    listed, notices = _counted(root, most)
    common = gcd(*(found.repeats for found in listed))
    allowed = sizes or ((resolution, resolution),)
    photos = []
    for found in listed:
        captions = _captions(root, found.listing, notices)
        for path in found.listing.pictures:
            photo = _read(root, path, allowed, found.masks.get(path), offered)
            repeats = found.repeats // common
            photos.append(replace(photo, caption=captions.get(path), repeats=repeats))
    same = [
        f"the same photo more than once: {some_of([root.name(path) for path in group])}"
        for group in duplicates([path for found in listed for path in found.listing.pictures])
    ]
    said = (
        *notices,
        *_cropped(photos, "the size next to their shape" if sizes else "their central square"),
        *_plain(photos),
        *_masks_of_other_sizes(photos),
        *same,
        *said_of_things(
            [photo.name for photo in photos if photo.caption is None], classes_of(folder)
        ),
        *lines_of(root.skipped),
    )
    return PhotoSet(tuple(photos), said)


def require_content(folder: Path, photos: Sequence[Photo]) -> None:
    """Refuse photos of which none shows anything.

    Raises:
      InputError: each is of one color all over, but for the noise of a camera.
    """
    if all(_is_plain(photo) for photo in photos):
        raise InputError(
            f"{shown(folder)}: every photo is black, white or of one color all over "
            f"({some_of([photo.name for photo in photos])}), so there is nothing to learn; take 3 "
            "to 10 photos that show the thing."
        )


def flip(pixels: Pixels) -> Pixels:
    """Return the mirror image, left and right exchanged."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _counted(root: PictureRoot, most: int) -> tuple[list[_Found], list[str]]:
    """Return the folders that hold photos, as `_listed` does.

    Raises:
      InputError: there are none, or too many.
    """
    listed, notices = _listed(root)
    count = sum(len(found.listing.pictures) for found in listed)
    if not count:
        raise InputError(
            f"{shown(root.path)}: masks or conditions and no photos; put photo.jpg beside each "
            "photo.mask.png."
        )
    if count > most:
        raise InputError(
            f"{shown(root.path)}: {count} photos, the limit is {most}; move "
            f"{count - most} of them to another folder."
        )
    return listed, notices


def _listed(root: PictureRoot) -> tuple[list[_Found], list[str]]:
    """Return the folders that hold photos, and a line about how often theirs are taken."""
    try:
        top = root.list(root.path)
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise InputError(
                f"{str(error)[:-1]}; name a folder with 1 to {MAX_PHOTOS} photos."
            ) from error
        raise
    if top.pictures:
        for inner in top.folders:
            alike = _named_alike(inner, top.pictures)
            root.skipped[root.name(inner)] = _OF_MASKS if alike else _SUB_FOLDER
        return [_without_masks(root, top)], []
    listed, lines = list[_Found](), []
    for inner in top.folders:
        repeats = repeats_of(inner)
        if repeats is None:
            root.skipped[root.name(inner)] = "a sub-folder without a number of repeats in its name"
            continue
        listing = root.list(inner)
        for deeper in listing.folders:
            root.skipped[root.name(deeper)] = _SUB_FOLDER
        found = _without_masks(root, listing, repeats[0])
        if count := len(found.listing.pictures):
            listed.append(found)
            lines.append(f"{root.name(inner)} ({count} photo{'s' if count > 1 else ''})")
    if listed:
        uneven = len({found.repeats for found in listed}) > 1
        how = ", taken as often as the numbers in these names say" if uneven else ""
        return listed, [f"photos from {some_of(lines)}{how}"]
    raise InputError(_no_photos(root, top))


def _named_alike(folder: Path, photos: Sequence[Path]) -> bool:
    """Return whether all pictures in a folder are called like photos, as kohya's trainer has masks.

    One that cannot be looked into is of other things.
    """
    with suppress(OSError):
        names = {path.stem for path in folder.iterdir() if is_picture(path)}
        return bool(names) and names <= {photo.stem for photo in photos}
    return False


def _no_photos(root: PictureRoot, top: Listing) -> str:
    inside = [(inner, _photos_in(inner)) for inner in top.folders]
    count = len(top.captions) + len(top.skipped) + (top.table is not None)
    count -= sum(reason == "hidden folder" for reason in top.skipped.values())
    for inner, photos in inside:
        if photos:
            return (
                f"{shown(root.path)}: no photos among its {count} files, but {photos} in its "
                f"folder {inner.name!r}; name that one: --photos {shown(inner)}"
            )
    return (
        f"{shown(root.path)}: no photos among its {count} files; put 3 to 10 files named "
        f"{SHOWN_SUFFIXES} there."
    )


def _captions(root: PictureRoot, found: Listing, notices: list[str]) -> dict[Path, str]:
    """Return the captions of a folder's photos; what is no caption is left aside by name."""
    captions: dict[Path, str] = {}
    by_stem: dict[str, dict[str, Path]] = {}
    for text in found.captions:
        by_stem.setdefault(text.stem, {}).setdefault(text.suffix.lower(), text)
    stems = {path.stem for path in found.pictures}
    for text in found.captions:
        first = next(by_stem[text.stem][s] for s in CAPTIONS if s in by_stem[text.stem])
        if text.stem not in stems:
            root.skipped[root.name(text)] = "not a caption; one has the same name as its photo"
        elif text != first:
            root.skipped[root.name(text)] = f"{first.name} is read"
        else:
            caption, remark = _caption(text, notices)
            if remark:
                root.skipped[root.name(text)] = remark
            if caption:
                captions |= {p: caption for p in found.pictures if p.stem == text.stem}
    if found.table is not None:
        _from_table(root, found, captions, notices)
    return captions


def _from_table(
    root: PictureRoot, found: Listing, captions: dict[Path, str], notices: list[str]
) -> None:
    """Add the captions of a table to those of files, which go before them."""
    assert found.table is not None
    named = read_column(found.table, TEXTS)
    if named is None:
        root.skipped[root.name(found.table)] = f"no column {' or '.join(TEXTS)}, so no captions"
        return
    names = {path.name: path for path in found.pictures}
    if missing := [name for name in named.texts if name not in names]:
        raise InputError(
            f"{shown(found.table)}: no photo {some_of(missing)} beside it; put it there, or "
            "remove its line."
        )
    notices += named.said
    for name, text in named.texts.items():
        captions.setdefault(names[name], text)


def _caption(path: Path, notices: list[str]) -> tuple[str | None, str | None]:
    """Return the first line with words in it, and a remark if that was not the whole file."""
    if (size := path.stat().st_size) > _MOST_CAPTION_BYTES:
        raise InputError(
            f"{shown(path)}: a caption of {size} bytes, the limit is {_MOST_CAPTION_BYTES}; remove "
            "or shorten it."
        )
    coding = coding_of(path)
    notices += [coding.said] if coding.said else []
    with opened_text(path, coding) as file:
        lines = [" ".join(line.split()) for line in file.read().splitlines() if line.strip()]
    if not lines:
        return None, "an empty caption; the photo is used without one"
    return lines[0], "only its first line is used" if lines[1:] else None


def _photos_in(folder: Path) -> int:
    """Return how many photos lie in a folder, without masks of them."""
    return sum(map(is_photo, PictureRoot(folder).list(folder).pictures))


def _without_masks(root: PictureRoot, listing: Listing, repeats: int = 1) -> _Found:
    """Return a folder's photos with the mask of each; masks of no photo are left aside by name.

    So are pictures that OneTrainer would give the model beside the prompt.
    """
    photos = tuple(filter(is_photo, listing.pictures))
    masks: dict[Path, Path] = {}
    for path in listing.pictures:
        if is_condition(path):
            root.skipped[root.name(path)] = _CONDITION
        if (stem := photo_of_mask(path)) is None:
            continue
        own = [photo for photo in photos if photo.stem == stem]
        if not own:
            root.skipped[root.name(path)] = f"a mask, and there is no photo {stem!r} beside it"
        elif own[0] in masks:
            root.skipped[root.name(path)] = f"a mask, and {masks[own[0]].name} is read"
        else:
            masks |= dict.fromkeys(own, path)
    return _Found(replace(listing, pictures=photos), masks, repeats)


def _read(
    root: PictureRoot,
    path: Path,
    sizes: Sequence[tuple[int, int]],
    mask_path: Path | None,
    offered: Sequence[tuple[int, int]],
) -> Photo:
    """Return a photo without its caption, brought to the size next to its shape."""
    wanted = sizes[0] if len(sizes) == 1 else nearest(look_at(path).size, sizes)
    fit = Fit(wanted, crop=True, smooth=True, draft_megapixels=0)
    picture = read_picture(path, fit)
    (width, height), (across, down) = picture.size, wanted
    cut = middle_size(picture.size, wanted)  # as `read_picture` cuts
    notes = [f"{width}x{height}", *picture.notes]
    if cut != picture.size:
        notes.append(f"centre crop {cut[0]}x{cut[1]}")
    if cut != wanted:
        verb = "resized" if cut > wanted else "small, enlarged"
        notes.append(f"{verb} to {across}x{down}")
    mask = size = None
    if mask_path is not None:
        mask, size = read_mask(mask_path, path, picture.size, fit, offered)
        other = "" if size == picture.size else f", {size[0]}x{size[1]}, resized with it"
        notes.append(f"weighted by {mask_path.name}{other}")
    return Photo(
        *(root.name(path), picture.pixels, None, ", ".join(notes)),
        kept=picture.kept,
        mask=mask,
        size=picture.size,
        mask_size=size,
    )


def _plain(photos: Sequence[Photo]) -> list[str]:
    """Return a line about photos that are of one color all over."""
    plain = [photo.name for photo in photos if _is_plain(photo)]
    if not plain:
        return []
    return [
        f"{len(plain)} of {len(photos)} photos are black, white or of one color all over, with "
        f"nothing to learn: {some_of(plain)}"
    ]


def _masks_of_other_sizes(photos: Sequence[Photo]) -> list[str]:
    """Return a line about masks that are smaller or larger than their photos."""
    others = [photo.name for photo in photos if photo.mask_size not in (None, photo.size)]
    if not others:
        return []
    return [f"masks of another size than their photo, resized with it: {some_of(others)}"]


def _is_plain(photo: Photo) -> bool:
    return int(np.ptp(photo.pixels, axis=(0, 1)).max()) <= _NOISE


def _cropped(photos: Sequence[Photo], shape: str) -> list[str]:
    """Return a line about photos that lose part of their area to the crop.

    Args:
      shape: what they are cropped to, in words.
    """
    lost = {photo.name: 1 - photo.kept for photo in photos if 1 - photo.kept > _WORTH_SAYING}
    if not lost:
        return []
    most = max(lost, key=lambda name: lost[name])
    low, high = (f"{100 * share:.0f}" for share in (min(lost.values()), lost[most]))
    share = f"{low} to {high} %" if low != high else f"{high} %"
    return [
        f"{len(lost)} of {len(photos)} photos are cropped to {shape} and lose {share} "
        f"of their area, most of all {most}"
    ]
