"""Labeled samples from npz arrays, folders of pictures, tables and sensor series, checked."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError
from edge_train.formats.pictures import read_picture
from edge_train.rng import Key
from edge_train.tasks.network.pictures import load_pictures
from edge_train.tasks.network.tables import is_folder_of_tables, is_table, load_tables

_TEST_SHARE = 0.2  # of samples that come without a test part
_MOST_CLASSES = 1000
_FEWEST = 4  # training samples
_CHUNK = 200_000  # values that exist in float64 at once; the most that reading holds


@dataclass(frozen=True)
class Samples:
    """Inputs (samples, ...), uint8 or float32, channels last, and a class number for each."""

    inputs: NDArray[Any]
    labels: NDArray[np.int64]

    def taken(self, numbers: NDArray[Any]) -> "Samples":
        """Return some of them."""
        return Samples(self.inputs[numbers], self.labels[numbers])


@dataclass(frozen=True)
class Dataset:
    """Training and test samples of the same shape, and what makes their numbers comparable.

    `mean` and `deviation` are those of the training samples: per channel of pictures and sensors,
    per column of a table. `notices` says what was cut, left out or set aside, a line each.
    """

    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    notices: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train.inputs.shape[1:]

    def standardized(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return inputs with zero mean and unit deviation, as fresh float32."""
        values = inputs.astype(np.float32)
        values -= self.mean
        values /= self.deviation
        return values


def load(
    path: Path,
    *,
    train_samples: int | None = None,
    test_samples: int | None = None,
    resolution: int | None = None,
    window: tuple[int, int] | None = None,
    label_column: str | None = None,
    standardization: str | None = None,
) -> Dataset:
    """Return the samples in a file or folder.

    - `.npz`: `train_images` and `train_labels`, the same for `test_` if there is a test part,
      and `class_names` if there are names. Instead of images, `train_inputs` may hold any arrays,
      or `train_jpeg` and `train_offsets` JPEG files one after another.
    - a folder: one subfolder of pictures per class, or `train` and `test` with such subfolders, or
      pictures with a table of their labels; see `pictures.load_pictures`.
    - a table (csv, tsv, jsonl, json, parquet), or a folder of tables named train, test, ...: a row
      a sample of numbers and a class; see `tables.load_tables`.

    Where no test part is given, a fifth of the samples is set aside, always the same.

    Args:
      train_samples, test_samples: take this many, picked by a fixed draw.
      resolution: side of pictures from a folder; default: that of the first one.
      window: (rows, stride) reads a table as a series in time: every `stride` rows, a window of
        `rows` with one label throughout becomes a sample.
      label_column: of a table; default: `label` or the like, else the last one.
      standardization: mean, then deviation, of each channel or column, as text; None: those of
        the training samples, which are then of two classes at least.

    Raises:
      InputError: what is there cannot be used.
    """
    notices: tuple[str, ...] = ()
    if is_table(path) if path.is_file() else is_folder_of_tables(path):
        train, test, names, notices = _tables(path, window, label_column)
    elif path.is_dir():
        train, test, names, notices = _folder(path, resolution, label_column)
    elif path.suffix.lower() == ".npz":
        train, test, names = _npz(path)
    elif not path.exists():
        raise InputError(f"data {path}: there is no such file or folder.")
    else:
        raise InputError(
            f"data {path}: must be a .npz file, a table (.csv, .tsv, .jsonl, .json, .parquet), or "
            "a folder of tables or pictures."
        )
    for part, samples in (("train", train), ("test", test)):
        if samples is not None and len(samples.labels) != len(samples.inputs):
            raise InputError(
                f"data {path}: {len(samples.inputs)} {part} samples, but {len(samples.labels)} "
                "labels."
            )
    if test is None:
        order = Key(0, 0).generator("test part").permutation(len(train.labels))
        aside = max(1, round(_TEST_SHARE * len(order)))
        train, test = train.taken(order[aside:]), train.taken(order[:aside])
    train, test = _some(train, train_samples), _some(test, test_samples)
    _check(path, train, test, names, fewest=1 if standardization else 2)
    if standardization:
        mean, deviation = _given(path, standardization, train.inputs.shape[-1])
        return Dataset(train, test, names, mean, deviation, notices)
    mean, deviation = _statistics(train.inputs)
    if not (deviation > 0).any():
        raise InputError(
            f"data {path}: every training sample is the same (all numbers are constant), so there "
            "is nothing to tell classes apart by."
        )
    deviation = np.where(deviation > 0, deviation, np.float32(1))
    return Dataset(train, test, names, mean, deviation, notices)


def _some(samples: Samples, count: int | None) -> Samples:
    if count is None or count >= len(samples.labels):
        return samples
    order = Key(0, 0).generator("subset").permutation(len(samples.labels))
    return samples.taken(np.sort(order[:count]))


def _given(path: Path, text: str, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and deviation of each channel that a recipe names."""
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if not all(map(math.isfinite, values)):
        values = []
    if len(values) != 2 * channels or min(values[channels:]) <= 0:
        raise InputError(
            f"standardization is {text!r}, data {path} needs {2 * channels} numbers: "
            f"the mean of each of {channels} channels or columns, then its deviation, above 0."
        )
    mean, deviation = np.array(values, np.float32).reshape(2, channels)
    return mean, deviation


def _check(path: Path, train: Samples, test: Samples, names: Sequence[str], fewest: int) -> None:
    for part, samples in (("train", train), ("test", test)):
        labels = samples.labels
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            wrong = labels[(labels < 0) | (labels >= len(names))][0]
            raise InputError(
                f"data {path}: {part} label {wrong} is out of range; {len(names)} classes are "
                f"numbered from 0 to {len(names) - 1}."
            )
        bad = sum(int((~np.isfinite(some)).sum()) for some in _chunks(samples.inputs))
        if bad:
            raise InputError(
                f"data {path}: {bad} numbers of the {part} samples are NaN or infinite; remove or "
                "fill them first."
            )
    if len(train.labels) < _FEWEST or not len(test.labels):
        raise InputError(
            f"data {path}: {len(train.labels)} training and {len(test.labels)} test samples are "
            f"too few; at least {_FEWEST} and 1 are needed."
        )
    found = np.unique(train.labels)
    if len(found) < fewest:
        raise InputError(
            f"data {path}: all training samples are of one class ({names[found[0]]!r}); two are "
            "the fewest that can be told apart."
        )
    if len(names) > _MOST_CLASSES:
        raise InputError(f"data {path}: {len(names)} classes, at most {_MOST_CLASSES} are handled.")
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise InputError(
            f"data {path}: training samples are of shape {train.inputs.shape[1:]}, test samples of "
            f"{test.inputs.shape[1:]}."
        )


def _chunks(inputs: NDArray[Any]) -> Iterator[NDArray[Any]]:
    count = max(_CHUNK // max(inputs[:1].size, 1), 1)
    for start in range(0, len(inputs), count):
        yield inputs[start : start + count]


def _statistics(inputs: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of every channel or column."""
    axes = tuple(range(inputs.ndim - 1))
    count = inputs.size // inputs.shape[-1]
    mean = sum(some.sum(axis=axes, dtype=np.float64) for some in _chunks(inputs)) / count
    square = sum(np.square(some - mean).sum(axis=axes) for some in _chunks(inputs)) / count
    deviation = np.sqrt(square)
    deviation[deviation < 1e-7 * (1 + np.abs(mean))] = 0
    return np.asarray(mean, np.float32), np.asarray(deviation, np.float32)


# ----------------------------------------------------------------------------- npz


def _npz(path: Path) -> tuple[Samples, Samples | None, tuple[str, ...]]:
    try:
        with (
            open(path, "rb") as file,
            np.load(file, allow_pickle=False) as arrays,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of headers by Python 2, and values beyond float32
            train = _npz_part(path, arrays, "train")
            if train is None:
                raise InputError(
                    f"data {path}: it holds {', '.join(arrays.files) or 'nothing'}; expected "
                    "train_images (or train_inputs) and train_labels."
                )
            test = _npz_part(path, arrays, "test")
            highest = max(int(part.labels.max(initial=0)) for part in (train, test) if part)
            if "class_names" in arrays.files:
                names = tuple(str(name) for name in _array(arrays, "class_names").ravel())
            else:
                names = tuple(str(number) for number in range(min(highest, _MOST_CLASSES) + 1))
    except FileNotFoundError as error:
        raise InputError(f"data {path}: there is no such file or folder.") from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of a damaged archive or header, NumPy raises what it meets
        if "pickle" in str(error):
            raise InputError(
                f"data {path}: it holds pickled objects, which are never read; save plain numeric "
                "arrays with numpy.savez_compressed."
            ) from error
        raise InputError(f"data {path}: damaged or not an npz file ({error}).") from error
    return train, test, names


def _npz_part(path: Path, arrays: Any, part: str) -> Samples | None:
    keys = [f"{part}_{name}" for name in ("images", "inputs", "jpeg")]
    found = [key for key in keys if key in arrays.files]
    if not found or f"{part}_labels" not in arrays.files:
        return None
    inputs = _array(arrays, found[0])
    if found[0].endswith("jpeg"):
        inputs = _jpegs(path, inputs, _array(arrays, f"{part}_offsets"))
    labels = _array(arrays, f"{part}_labels")
    if inputs.ndim < 2 or inputs.dtype.kind not in "uif" or 0 in inputs.shape[1:]:
        raise InputError(
            f"data {path}: {found[0]} is {inputs.dtype} of shape {inputs.shape}; expected numbers "
            "of shape (samples, ...)."
        )
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise InputError(
            f"data {path}: {part}_labels is {labels.dtype} of shape {labels.shape}; expected one "
            "whole number a sample."
        )
    if inputs.dtype != np.uint8:
        inputs = inputs.astype(np.float32)
    if found[0].endswith("images") and inputs.ndim == 3:
        inputs = inputs[..., None]  # grey pictures have one channel
    return Samples(inputs, labels.astype(np.int64))


def _array(arrays: Any, name: str) -> NDArray[Any]:
    """Return an array of an archive that holds as many bytes as its header says.

    Raises:
      ValueError: it does not; NumPy would take memory for all that the header promises.
    """
    member = arrays.zip.getinfo(f"{name}.npy" if f"{name}.npy" in arrays.zip.namelist() else name)
    with arrays.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        shape, _, kind = read.get(version, np.lib.format.read_array_header_2_0)(file)
        left = member.file_size - file.tell()
    if kind.hasobject:
        raise ValueError("pickled objects")
    if min((0, *shape)) < 0 or math.prod(shape) * kind.itemsize > left:
        raise ValueError(f"{name} says it is {kind} of shape {shape}, and has {left} bytes")
    return np.asarray(arrays[name])


def _jpegs(path: Path, content: NDArray[Any], offsets: NDArray[Any]) -> NDArray[np.uint8]:
    if content.ndim != 1 or content.dtype != np.uint8 or offsets.dtype.kind not in "ui":
        raise InputError(
            f"data {path}: pictures are {content.dtype} of shape {content.shape}, their offsets "
            f"{offsets.dtype}; expected uint8 one after another, and whole numbers."
        )
    pictures = [
        read_picture(content[start:end].tobytes(), name=f"data {path}: picture {number}").pixels
        for number, (start, end) in enumerate(pairwise(offsets.tolist()))
    ]
    return np.stack(pictures)


# ----------------------------------------------------------------------------- pictures


def _folder(
    path: Path, resolution: int | None, label_column: str | None
) -> tuple[Samples, Samples | None, tuple[str, ...], tuple[str, ...]]:
    found = load_pictures(path, resolution, label_column)
    test = None if found.test is None else Samples(*found.test)
    return Samples(*found.train), test, found.class_names, found.notices


# ----------------------------------------------------------------------------- tables


def _tables(
    path: Path, window: tuple[int, int] | None, label_column: str | None
) -> tuple[Samples, Samples | None, tuple[str, ...], tuple[str, ...]]:
    found = load_tables(path, window=window, label_column=label_column)
    test = None if found.test is None else Samples(*found.test)
    return Samples(*found.train), test, found.class_names, found.notices
