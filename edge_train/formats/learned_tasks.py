"""The tasks that a network learned one after the other, as a run folder keeps them: one file.

Of every task: its name, its classes, how well each task was answered when it had been learned, and
a few test samples of it, by which that is measured. Of every matrix: the directions of its inputs
that the tasks need, in INT8, and the gradient of each task along its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import RunFolderError
from edge_train.formats.tensor_store import load_tensors, save_tensors

FORMAT = "edge-train tasks 1"
FILE = "tasks.safetensors"  # in a run folder


@dataclass(frozen=True)
class LearnedTask:
    """One of them.

    Attributes:
      name: of its data.
      classes: the outputs of the network that it tells apart.
      data_sha256: of its samples and the names of their classes.
      scores: share of right answers of every task up to this one when it had been learned, each
        among its own classes; None where nothing was kept to measure it by.
      inputs, labels: test samples that are kept, and their outputs' numbers; none where there are
        none.
    """

    name: str
    classes: tuple[int, ...]
    data_sha256: str
    scores: tuple[float | None, ...]
    inputs: NDArray[Any]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Directions:
    """What the inputs of one matrix span.

    Attributes:
      codes: (inputs, k) INT8; scale: (k,) what a step of each direction is worth.
      owned: (tasks, k) which directions each task needs.
      gradients: of each task, (outputs, directions that it needs).
    """

    codes: NDArray[np.int8]
    scale: Array
    owned: NDArray[np.bool_]
    gradients: tuple[Array, ...]

    @property
    def nbytes(self) -> int:
        """Bytes on disk, but for names."""
        gradients = sum(one.nbytes for one in self.gradients)
        return self.codes.nbytes + self.scale.nbytes + self.owned.nbytes + gradients


@dataclass(frozen=True)
class LearnedTasks:
    """All of them, the first one first; `directions` by matrix, none where nothing protects."""

    tasks: tuple[LearnedTask, ...]
    directions: Mapping[str, Directions]

    @property
    def nbytes(self) -> int:
        """Bytes of the directions on disk."""
        return sum(one.nbytes for one in self.directions.values())


def save(path: Path, learned: LearnedTasks) -> None:
    """Write them, atomically."""
    tensors: dict[str, NDArray[Any]] = {}
    for number, task in enumerate(learned.tasks):
        tensors |= {f"kept/{number}/inputs": task.inputs, f"kept/{number}/labels": task.labels}
    for name, one in learned.directions.items():
        tensors[f"directions/{name}/codes"] = one.codes
        tensors[f"directions/{name}/scale"] = one.scale
        tensors[f"directions/{name}/owned"] = one.owned
        for number, gradient in enumerate(one.gradients):
            tensors[f"gradients/{number}/{name}"] = gradient
    said = [
        {
            "name": task.name,
            "classes": task.classes,
            "data_sha256": task.data_sha256,
            "scores": task.scores,
        }
        for task in learned.tasks
    ]
    metadata = {
        "format": FORMAT,
        "tasks": json.dumps(said),
        "matrices": json.dumps(sorted(learned.directions)),
    }
    save_tensors(path, tensors, metadata)


def load(path: Path) -> LearnedTasks:
    """Return the tasks in a file.

    Raises:
      RunFolderError: it is missing, damaged, of a later version, or says what cannot be.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise RunFolderError(
            f"{path}: format {metadata.get('format')!r}, expected {FORMAT!r}; use the edge-train "
            "that wrote it, or a newer one."
        )
    try:
        said = json.loads(metadata["tasks"])
        tasks = tuple(_task(one, number, tensors) for number, one in enumerate(said))
        directions = {
            str(name): _directions(str(name), len(tasks), tensors)
            for name in json.loads(metadata["matrices"])
        }
    except (LookupError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{path}: damaged, or not written by edge-train ({error}).") from error
    return LearnedTasks(tasks, directions)


def _task(said: Any, number: int, tensors: Mapping[str, NDArray[Any]]) -> LearnedTask:
    inputs, labels = tensors[f"kept/{number}/inputs"], tensors[f"kept/{number}/labels"]
    classes = tuple(int(one) for one in said["classes"])
    scores = tuple(None if one is None else float(one) for one in said["scores"])
    _need(bool(classes) and min(classes) >= 0, "a task has no classes")
    _need(labels.dtype == np.int64 and labels.shape == (len(inputs),), "labels are of no samples")
    _need(inputs.dtype.kind in "uif", "samples are no numbers")
    _need(set(labels.tolist()) <= set(classes), "a kept sample is of no class of its task")
    _need(len(scores) == number + 1, "a task has scores of others than those before it")
    return LearnedTask(str(said["name"]), classes, str(said["data_sha256"]), scores, inputs, labels)


def _directions(name: str, tasks: int, tensors: Mapping[str, NDArray[Any]]) -> Directions:
    codes, scale, owned = (tensors[f"directions/{name}/{of}"] for of in ("codes", "scale", "owned"))
    gradients = tuple(tensors[f"gradients/{number}/{name}"] for number in range(tasks))
    _need(codes.ndim == 2 and codes.dtype == np.int8, "directions are not INT8")
    inputs, count = codes.shape
    _need(count <= inputs, "there are more directions than inputs")
    _need(scale.dtype == np.float32 and scale.shape == (count,), "scales are of no directions")
    _need(bool(np.isfinite(scale).all()), "a scale is not finite")
    _need(owned.dtype == np.bool_ and owned.shape == (tasks, count), "nobody owns the directions")
    for gradient, own in zip(gradients, owned, strict=True):
        fits = gradient.ndim == 2 and gradient.shape[1] == own.sum()
        _need(fits and gradient.dtype == np.float32, "gradients are of no directions")
        _need(bool(np.isfinite(gradient).all()), "a gradient is not finite")
    return Directions(codes, scale, owned, gradients)


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
