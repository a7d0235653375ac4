"""Photos and texts that a program has in memory become files that a run can be resumed from."""

import io
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from edge_train.errors import InputError, RunFolderError
from edge_train.formats.atomic import write_bytes
from edge_train.recipe import Recipe
from edge_train.tasks import task_of

R = TypeVar("R", bound=Recipe)
Given = Sequence[Any] | None
_CHANNELS = (3, 4)  # of an array with three dimensions


def write(recipe: R, data: Any, folder: Path) -> tuple[R, list[Path]]:
    """Return the recipe with what was given as its data, and what was made on the disk for it.

    Args:
      folder: of the run; `FOLDER.data` beside it is written.

    Raises:
      InputError: data of a type that nobody reads, or the recipe names data, too.
      RunFolderError: the files cannot be written.
    """
    if data is None:
        return recipe, []
    key = task_of(recipe).data
    if getattr(recipe, key) is not None:
        raise InputError(f"data is given, and {key} of the recipe names some; leave one out.")
    if isinstance(data, str | bytes) or not isinstance(data, Sequence) or not data:
        raise InputError(
            f"data is {_kind(data)}, must be a list of photos, of texts or of (text, label) pairs; "
            f"a file or folder goes into the recipe: {type(recipe).__name__}({key}=...)."
        )
    place = folder.with_name(f"{folder.name}.data")
    files = _photos(data) if key == "photos" else {"texts.jsonl": _texts(data)}
    if place.exists():
        raise RunFolderError(f"{place} is there already; remove it, or name another out.")
    try:
        place.mkdir(parents=True)
        for name, content in files.items():
            write_bytes(place / name, content)
    except OSError as error:
        remove(place)
        raise RunFolderError(f"{place}: cannot be written ({error.strerror}).") from error
    path = place if key == "photos" else place / "texts.jsonl"
    changed: dict[str, Any] = {key: str(path)}
    return replace(recipe, **changed), [place]


def remove(path: Path) -> None:
    """Remove a file or folder that was made here, if it is there."""
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _photos(data: Sequence[Any]) -> dict[str, bytes]:
    return {f"{number:02d}.png": _png(one, number) for number, one in enumerate(data)}


def _png(photo: Any, number: int) -> bytes:
    if isinstance(photo, np.ndarray):
        grey = photo.ndim == 2
        if photo.dtype != np.uint8 or not (
            grey or (photo.ndim == 3 and photo.shape[2] in _CHANNELS)
        ):
            raise InputError(
                f"photo {number} is an array of {photo.dtype} {photo.shape}, must be uint8 of "
                "(height, width, 3)."
            )
        photo = Image.fromarray(photo)
    if not isinstance(photo, Image.Image):
        raise InputError(
            f"photo {number} is {_kind(photo)}, must be a PIL image or a uint8 array of (height, "
            "width, 3)."
        )
    target = io.BytesIO()
    with suppress(AttributeError):  # what a PNG cannot hold becomes what it can
        photo = photo if photo.mode in ("L", "RGB", "RGBA", "P") else photo.convert("RGB")
    exif = photo.getexif()  # a camera's word on what is upright
    photo.save(target, "PNG", exif=exif)
    return target.getvalue()


def _texts(data: Sequence[Any]) -> bytes:
    """Return texts, or pairs of a text and its label, as JSON lines."""
    paired = not isinstance(data[0], str)
    rows = [_row(one, number, paired) for number, one in enumerate(data)]
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def _row(one: Any, number: int, paired: bool) -> dict[str, Any]:
    if not paired and isinstance(one, str):
        return {"text": one}
    if paired and isinstance(one, tuple | list) and len(one) == 2:
        text, label = one
        label = label.item() if isinstance(label, np.generic) else label
        if isinstance(text, str) and isinstance(label, str | int | float):
            return {"text": text, "label": label}
    wanted = "a pair (text, label) as the first" if paired else "a text as the first"
    raise InputError(f"item {number} of data is {_kind(one)}, must be {wanted}.")


def _kind(value: Any) -> str:
    """Return what a value is, for a sentence."""
    if isinstance(value, Sequence) and not value:
        return f"an empty {type(value).__name__}"
    return f"{type(value).__name__}"
