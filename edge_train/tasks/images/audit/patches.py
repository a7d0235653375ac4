"""One patch on many pictures in many views: how sure the classifier still is, and its slope."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.protocols import Apply, Runtime
from edge_train.rng import Key
from edge_train.tasks.images.audit.warps import Seen, drawn, seen, size_of
from edge_train.tasks.images.classifier_file import Classifier

PATCH = "patch"  # the only block: (grid, grid, 3); pixels are 127.5 (1 + tanh of it)
_HALF = np.float32(127.5)


@runtime_checkable
class Differentiable(Protocol):
    """A backbone that has slopes."""

    def differentiable(self, pixels: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return features, and what turns a gradient at them into one at the pixels."""
        ...


@dataclass(frozen=True)
class Photos:
    """Pictures that were read: (pictures, side, side, 3), and the class of each."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def side(self) -> int:
        """Of each picture, in pixels."""
        return int(self.pixels.shape[1])


def pixels_of(block: Array) -> Array:
    """Return a patch as pixels."""
    found: Array = _HALF * (1 + np.tanh(block))
    return found


def placed(photos: Photos, key: Key, pictures: NDArray[np.int64], views: int) -> Batch:
    """Return a batch: pictures, where the patch lies on each, and the warp of each view."""
    draw = key.generator("places and views")
    room = photos.side - size_of(photos.side)
    places = draw.uniform(0, room, (len(pictures), 2)).astype(np.float32)
    return {"pictures": pictures, "places": places, "warps": drawn(draw, len(pictures), views)}


class HeadLogits:
    """Features to logits, and a gradient back: a trained head."""

    def __init__(self, classifier: Classifier) -> None:
        self._stages, self._standard = classifier.stages, classifier.standard
        self._parameters = classifier.parameters

    def __call__(self, features: Array) -> Array:
        """Return logits (rows, classes)."""
        return self._run(features)[0]

    def back(self, features: Array, error: Array) -> Array:
        """Return the gradient at the features of one at the logits."""
        _, tapes = self._run(features)
        for stage, tape in zip(reversed(self._stages), reversed(tapes), strict=True):
            _, passed = stage.backward(tape, error, True)
            assert passed is not None
            error = passed
        return error / np.float32(self._standard.scale)

    def _run(self, features: Array) -> tuple[Array, list[Any]]:
        values, tapes = self._standard(features), []
        for stage in self._stages:
            read = {name: self._parameters[f"{stage.name}.{name}"] for name in stage.shapes()}
            values, tape = stage.forward(read, values)
            tapes.append(tape)
        return values, tapes


class PatchEngine:
    """A runtime whose only block is the patch; its loss is by how much the right class leads.

    The logits of a sample's views are averaged; the loss is the right one minus the largest other.
    Fitting makes it small: below zero the classifier is wrong.

    Args:
      backbone: pixels (n, side, side, 3) to features (n, width).
    """

    device, dtype, pages = "cpu", "float32", None

    def __init__(
        self, backbone: Callable[[Any], Array], head: HeadLogits, photos: Photos, start: Array
    ) -> None:
        self._backbone: Any = backbone  # `Differentiable` where gradients are asked for
        self._head, self._photos = head, photos
        self.parameters = Parameters({PATCH: start})
        self.forwards = 0  # views that went through the backbone

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the lead of the right class at every point, (points, samples)."""
        found = []
        for point in points:
            views = self._views(batch, pixels_of(point[PATCH]))
            features = self.features(one.pixels for one in views)
            found.append(self._lead(batch, features)[0])
        return np.stack(found)

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the exact gradient of the mean lead: of each view, gone back, and summed.

        One view is differentiated at a time, so its activations alone are held; where a sample has
        several, their logits are computed first.
        """
        assert isinstance(self._backbone, Differentiable)
        block = self.parameters[PATCH]
        pixels, grid = pixels_of(block), len(block)
        gradient, leads = np.zeros((grid * grid, 3), np.float32), []
        for number in range(len(batch["pictures"])):
            part = {name: values[number : number + 1] for name, values in batch.items()}
            views = list(self._views(part, pixels))
            lead, error = self._lead(part, self.features(one.pixels for one in views))
            leads.append(lead)
            for view, own in zip(views, error, strict=True):
                features, back = self._backbone.differentiable(view.pixels[None])
                gradient += view.back(back(self._head.back(features, own[None]))[0])
        gradient /= np.float32(len(leads))
        slope = _HALF * (1 - np.square(np.tanh(block)))
        apply(PATCH, gradient.reshape(block.shape) * slope)
        return np.concatenate(leads)

    def features(self, views: Iterable[Array]) -> Array:
        """Return the features of views; one in a call, as when features are computed once."""
        found = np.concatenate([self._backbone(view[None]) for view in views])
        self.forwards += len(found)
        return found

    def seen(self, batch: Batch, patch: Array | None) -> Array:
        """Return the features (samples, views, width) of a batch under a patch, None: under none.

        Args:
          patch: (grid, grid, 3) pixels, or one for each sample.
        """
        samples, views = batch["warps"].shape[:2]
        found = self.features(one.pixels for one in self._views(batch, patch))
        return found.reshape(samples, views, -1)

    def _views(self, batch: Batch, patch: Array | None) -> Iterator[Seen]:
        size = 0.0 if patch is None else size_of(self._photos.side)
        if patch is None:
            patch = np.zeros((1, 1, 3), np.float32)
        rows = zip(batch["pictures"].tolist(), batch["places"], batch["warps"], strict=True)
        for number, (picture, place, warps) in enumerate(rows):
            own = patch if patch.ndim == 3 else patch[number]
            for warp in warps:
                yield seen(self._photos.pixels[picture], own, place, size, warp)

    def _lead(self, batch: Batch, features: Array) -> tuple[Array, Array]:
        """Return the lead of each sample, and its gradient at the logits of each view."""
        samples, views = batch["warps"].shape[:2]
        labels = self._photos.labels[batch["pictures"]]
        logits = self._head(features).reshape(samples, views, -1).mean(axis=1)
        rows = np.arange(samples)
        right = logits[rows, labels]
        others = logits.copy()
        others[rows, labels] = -np.inf
        error = np.zeros_like(logits)
        error[rows, labels] = 1
        error[rows, others.argmax(axis=1)] = -1
        lead: Array = right - others.max(axis=1)
        return lead, np.repeat(error / np.float32(views), views, axis=0)

    def device_bytes(self) -> int:
        """Return 0: there is no device beside the host."""
        return 0

    def close(self) -> None:
        """Release nothing."""


@dataclass(frozen=True)
class PatchTask:
    """An `Objective`: the lead of the right class on some pictures of a step.

    Args:
      samples: pictures of a step.
      views: of each, whose logits are averaged.
    """

    photos: Photos
    samples: int
    views: int
    seed: int

    def batch(self, key: Key) -> Batch:
        """Return pictures, places and views of a step."""
        count = len(self.photos.labels)
        order = key.generator("pictures of a step").permutation(count)
        return placed(self.photos, key, order[: min(self.samples, count)], self.views)

    def evaluation(self) -> Batch:
        """Return every picture once."""
        return placed(
            self.photos, Key(self.seed, -7), np.arange(len(self.photos.labels)), self.views
        )

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return leads (points, samples)."""
        return runtime.forward(batch, points)
