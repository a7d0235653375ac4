"""Features of pictures, computed once: a file of rows in the run folder, known by their content."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError, RunFolderError
from edge_train.formats.atomic import write_parts
from edge_train.formats.pictures import Pixels
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.tensor_store import load_metadata, safetensors_header
from edge_train.formats.weight_files import blocks_of
from edge_train.tasks.images.backbone import Features
from edge_train.tasks.images.views import patched, views

_ROWS, _HASHES = "features", "sha256"  # in this order in the file: hashes are known last
_HASH_BYTES = 32


@dataclass(frozen=True)
class Sample:
    """One picture: its name below the data, its class, its part, and how many views it gets."""

    name: str
    label: int
    test: bool
    views: int


@dataclass(frozen=True)
class FeatureFile:
    """Rows of features on a disk; only those that are asked for are read.

    Attributes:
      classes: names of the classes.
      samples: the pictures, in order; the first row of each is the whole of it, the others views.
      key: what the rows depend on beside the pictures.
      sha256: of all that is in the file.
    """

    path: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    width: int
    key: str
    sha256: str

    @cached_property
    def _file(self) -> TensorFile:
        return TensorFile(self.path)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each picture, and the end, (pictures + 1,)."""
        return np.cumsum([0, *(sample.views for sample in self.samples)], dtype=np.int64)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The class of each picture, (pictures,)."""
        return np.array([sample.label for sample in self.samples], np.int64)

    def rows(self, numbers: NDArray[Any]) -> Array:
        """Return some rows, (rows, width) float32."""
        return self._file.rows(_ROWS, numbers.tolist())

    def by_content(self) -> dict[bytes, int]:
        """Return the number of each picture by the hash of its file."""
        raw = np.empty(len(self.samples) * _HASH_BYTES, np.uint8)
        self._file.read_into(_HASHES, raw)
        rows = raw.reshape(-1, _HASH_BYTES)
        return {row.tobytes(): number for number, row in enumerate(rows)}


class FeatureWriter:
    """Computes features and writes them, whole or not at all; memory is that of one picture.

    Args:
      backbone: opens the network, when the first picture asks for it.
      side, width: of the pictures that it reads, and of what it gives.
      seed: of views; those of a picture follow from it and the picture's pixels.
      key: what the rows depend on beside the pictures.
      patched: of a picture's views, the last so many that have a patch on them; pictures of one
        view have none.
      earlier: an earlier run's, whose rows of the same key are taken over.
      earlier_patched: what `patched` was in that run: such rows are not taken over.
    """

    def __init__(
        self,
        backbone: Callable[[], Features],
        *,
        side: int,
        width: int,
        seed: int,
        key: str,
        patched: int = 0,
        earlier: FeatureFile | None = None,
        earlier_patched: int = 0,
    ) -> None:
        self._open, self._side, self._width = backbone, side, width
        self._seed, self._key, self._patched = seed, key, patched
        self._earlier = earlier if earlier is not None and earlier.key == key else None
        self._earlier_patched = earlier_patched
        self._known = self._earlier.by_content() if self._earlier else {}
        self._network: Features | None = None
        self.taken_over = 0  # pictures

    def write(
        self,
        path: Path,
        classes: Sequence[str],
        samples: Sequence[Sample],
        files: Mapping[str, Path],
        tick: Callable[[int], None],
    ) -> None:
        """Write the features of all samples.

        Args:
          files: of the pictures, by name.
          tick: told how many are done.

        Raises:
          InputError: a picture cannot be read.
          ModelError: features are not finite.
          RunFolderError: the file cannot be written.
        """
        about = {
            "classes": json.dumps(list(classes)),
            "key": self._key,
            "samples": json.dumps([[s.name, s.label, s.test, s.views] for s in samples]),
        }
        rows = sum(sample.views for sample in samples)
        kinds = {
            _ROWS: ("F32", (rows, self._width)),
            _HASHES: ("U8", (len(samples), _HASH_BYTES)),
        }

        def pieces() -> Iterator[bytes]:
            yield safetensors_header(kinds, about)
            hashes = []
            for number, sample in enumerate(samples):
                file = files[sample.name]
                hashes.append(_hash_of(file))
                yield from self._rows_of(sample, file, hashes[-1])
                tick(number + 1)
            yield b"".join(hashes)

        write_parts(path, pieces())
        self._network = None

    def _rows_of(self, sample: Sample, file: Path, digest: bytes) -> Iterator[bytes]:
        number, made = self._known.get(digest), 0
        plain = _plain(sample.views, self._patched)
        if self._earlier is not None and number is not None:
            start, end = self._earlier.starts[number : number + 2].tolist()
            if _plain(end - start, self._earlier_patched) >= plain:
                self.taken_over += 1
                rows = self._earlier.rows(np.arange(start, start + plain))
                yield rows.astype("<f4").tobytes()
                made = plain
        looks = [views(file, digest.hex(), plain, self._side, self._seed)] if not made else []
        if sample.views > plain:
            count = sample.views - plain
            looks.append(patched(file, digest.hex(), count, self._side, self._seed))
        # one at a time: a call of more was no faster on one core, and held up to 75 MB more
        for pixels in chain(*looks):
            if self._network is None:
                self._network = self._open()
            yield _computed(self._network, pixels, sample.name)


def _plain(views: int, patched: int) -> int:
    """Return how many views of a picture have no patch on them."""
    return views - patched if views > 1 else views


def _hash_of(file: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        for block in blocks_of(file):
            digest.update(block)
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); put it back, or start without it."
        ) from error
    return digest.digest()


def _computed(network: Features, pixels: Pixels, name: str) -> bytes:
    found = network(pixels[None])
    if not np.isfinite(found).all():
        raise ModelError(
            f"features of {name} are not finite: the backbone is damaged, or wants its pixels in "
            "another range; try another --model."
        )
    return np.ascontiguousarray(found, "<f4").tobytes()


def open_features(path: Path) -> FeatureFile:
    """Return a file of features that is whole; all of it is read once to know its hash.

    Raises:
      RunFolderError: it is missing or damaged.
    """
    about = load_metadata(path)
    try:
        entries = TensorFile(path).entries
        entry, hashes, key = entries[_ROWS], entries[_HASHES], about["key"]
        samples = tuple(
            Sample(str(name), int(label), bool(test), int(count))
            for name, label, test, count in json.loads(about["samples"])
        )
        classes = tuple(map(str, json.loads(about["classes"])))
        if sum(s.views for s in samples) != entry.shape[0] or not all(
            0 <= s.label < len(classes) and s.views > 0 for s in samples
        ):
            raise ValueError("its rows do not fit its pictures")
        if entry.dtype != "F32" or len(entry.shape) != 2 or not entry.shape[1]:
            raise ValueError("its rows are no features")
        if hashes.nbytes != _HASH_BYTES * len(samples):
            raise ValueError("its hashes do not fit its pictures")
    except (
        ModelError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        raise RunFolderError(f"{path}: cannot be used ({error}).") from error
    found = _hash_of(path).hex()
    return FeatureFile(path, classes, samples, entry.shape[1], key, found)
