"""Pictures for the report: mistakes, and those nearest to each class and each learned feature."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_train.arrays.types import Array, Point
from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes
from edge_train.records.folder import RunFolder
from edge_train.tasks.images.engine import HeadEngine
from edge_train.tasks.images.features import FeatureFile
from edge_train.tasks.images.objective import TOGETHER
from edge_train.tasks.images.scoring import Scored
from edge_train.tasks.images.stage import HasBank
from edge_train.tasks.images.views import whole
from edge_train.tasks.mistakes import record

_SIDE = 128  # pixels of a picture in the report
_NEAREST = 4  # pictures of a class or feature
_CLASSES, _FEATURES = 12, 12  # that are shown


def shown(
    folder: Path,
    engine: HeadEngine,
    point: Point,
    rows: Callable[[NDArray[np.int64]], Array],
    file: FeatureFile,
    found: Scored,
    path: Callable[[str], Path],
) -> dict[str, Any]:
    """Return `mistakes`, `nearest` and `features` for the journal; their pictures are written.

    Args:
      rows: standardized features of pictures.
      path: of a picture by its name; one that is gone is left out.

    Raises:
      RunFolderError: a picture cannot be written.
    """
    samples = RunFolder(folder).samples

    def kept(picture: int, name: str) -> str | None:
        try:
            pixels = whole(path(file.samples[picture].name), _SIDE)
        except InputError:
            return None  # it was removed since its features were computed
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        write_bytes(samples / f"{name}.jpg", buffer.getvalue())
        return (samples / f"{name}.jpg").relative_to(folder).as_posix()

    mistakes = []
    for number, mistake in enumerate(found.mistakes, 1):
        picture = int(found.pictures[mistake.row])
        more = {"picture": kept(picture, f"mistake-{number:02d}")}
        mistakes.append(record(mistake, file.classes, **more))
    every = np.flatnonzero([not sample.test for sample in file.samples])
    nearest = _strongest(lambda some: engine.outputs(rows(some), point), every)
    classes = [
        _strip(name, nearest[number], f"class-{number + 1:02d}", kept)
        for number, name in enumerate(file.classes[:_CLASSES])
    ]
    shown_features = []
    stage = engine.stages[0]
    if isinstance(stage, HasBank):
        read = {n.partition(".")[2]: point[n] for n in point if n.startswith(f"{stage.name}.")}
        strongest = _strongest(lambda some: stage.has(read, rows(some)), every)
        shown_features = [
            _strip(f"feature {number + 1}", some, f"feature-{number + 1:02d}", kept)
            for number, some in enumerate(strongest[:_FEATURES])
        ]
    return {"mistakes": mistakes, "nearest": classes, "features": shown_features}


def _strongest(
    measure: Callable[[NDArray[np.int64]], Array], pictures: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return for each column of a measure the pictures with the most of it, (columns, 4)."""
    best: list[tuple[Array, NDArray[np.int64]]] = []
    for start in range(0, len(pictures), TOGETHER):
        some = pictures[start : start + TOGETHER]
        best.append((measure(some), some))
        values = np.concatenate([found for found, _ in best])
        numbers = np.concatenate(
            [np.broadcast_to(which.reshape(len(which), -1), found.shape) for found, which in best]
        )
        order = np.argsort(-values, axis=0, kind="stable")[:_NEAREST]
        best = [
            (np.take_along_axis(values, order, 0), np.take_along_axis(numbers, order, 0)),
        ]
    return best[0][1].T


def _strip(
    name: str,
    pictures: Sequence[int] | NDArray[np.int64],
    stem: str,
    kept: Callable[[int, str], str | None],
) -> Mapping[str, Any]:
    """Return a name and its pictures, written as files of this stem."""
    paths = [kept(int(picture), f"{stem}-{place}") for place, picture in enumerate(pictures, 1)]
    return {"name": name, "pictures": [path for path in paths if path]}
