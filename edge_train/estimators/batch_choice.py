"""Batch selections: some of the samples that a task draws for a step are trained."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Batch, State
from edge_train.errors import InputError, NonFinite
from edge_train.estimators.coreset import Numbers, budgets, facility_location, is_small
from edge_train.estimators.sample_gradients import (
    ExactGradients,
    SampleGradients,
    SlopeGradients,
    adam_features,
    largest,
    remember,
)
from edge_train.protocols import HasSources, LastLayer, Objective, Runtime, TellsLastLayer
from edge_train.rng import Key, direction

_SOURCE, _WEIGHT = "source", "weight"  # of a batch
_DIRECTIONS = -6  # the step of the key that directions are drawn from, the same in all steps


@dataclass(frozen=True)
class RandomChoice:
    """As many as are trained, each as likely: what every other selection is compared with."""

    count: int

    def choose(self, task: Objective, runtime: Runtime, key: Key) -> Batch:
        """Return the batch of a step."""
        batch = task.batch(key)
        drawn = key.generator("selection").choice(samples_in(batch), self.count, replace=False)
        return some_of(batch, drawn)


@dataclass(frozen=True)
class LargestLosses:
    """Those of the largest loss.

    Args:
      count: that are trained, out of
      forwards: that are passed through the model.
    """

    count: int
    forwards: int

    def begin(self, runtime: Any) -> State:
        """Return no state."""
        return {}

    def choose(self, task: Objective, runtime: Runtime, key: Key) -> Batch:
        """Return the batch of a step.

        Raises:
          NonFinite: a loss is not finite.
        """
        batch = task.batch(key)
        losses = _finite(task.loss(runtime, batch, [runtime.parameters])[0])
        return some_of(batch, np.argsort(-losses, kind="stable")[: self.count])


@dataclass
class Coreset:
    """Samples of small sources, and those that stand for the gradients of all others.

    Candidates of small sources are kept. The rest of the batch is shared among the other sources in
    proportion to their candidates; of each, those are taken that facility location finds by the l1
    distances of their gradients of the last layer, as Adam would use them, in the places where the
    mean of the source's is largest. All that are taken count the same.

    Args:
      count: that are trained, out of
      forwards: that are passed through the model.
      places: of a gradient that are compared.
      directions: None for exact gradients, else along how many they are seen (`SlopeGradients`).
      seed: of these.

    Source: CoLM (arXiv:2407.19580), with the gradient of the last layer where it takes that of the
    last block's values; we differ in exact gradients and in telling small sources by their sizes.
    Where small ones are more than the batch holds, facility location takes of them all.
    """

    count: int
    forwards: int
    places: int
    directions: int | None = None
    seed: int = 0
    state: State = field(default_factory=dict)

    def begin(self, runtime: Any) -> State:
        """Return the moments of what was trained, of the last layer, and their steps."""
        if not isinstance(runtime, TellsLastLayer):
            raise InputError(
                f"--batch-selection {'colm' if self.directions is None else 'colm-zo'} needs the "
                "last layer of the model, which this engine does not tell; use --batch-selection "
                "loss."
            )
        shape = runtime.last_layer_shape
        moments = {name: np.zeros(shape, np.float32) for name in ("first", "second")}
        self.state = {**moments, "steps": np.zeros((), np.int64)}
        return self.state

    def choose(self, task: Objective, runtime: Any, key: Key) -> Batch:
        """Return the batch of a step.

        Raises:
          NonFinite: a loss or a gradient is not finite.
        """
        batch = task.batch(key)
        layer: LastLayer = runtime.last_layer(batch)
        _finite(layer.losses)
        _finite(layer.errors)
        sizes = np.ones(1, np.int64)
        sources = np.zeros(len(layer.losses), np.int64)
        if isinstance(task, HasSources) and _SOURCE in batch:
            sizes, sources = task.source_sizes, batch[_SOURCE]
        gradients = self._gradients(layer)
        chosen = self._chosen(gradients, sources, sizes)
        remember(gradients.mean(chosen), self.state["first"], self.state["second"])
        self.state["steps"] += 1
        return some_of(batch, chosen)

    def _gradients(self, layer: LastLayer) -> SampleGradients:
        if self.directions is None:
            return ExactGradients(layer)
        shape = (layer.errors.shape[1], layer.inputs.shape[1])
        key = Key(self.seed, _DIRECTIONS)
        return SlopeGradients(layer, self.directions, lambda k: direction(key, k, "last", shape))

    def _chosen(self, gradients: SampleGradients, sources: Numbers, sizes: Numbers) -> Numbers:
        """Return the candidates that are trained, ascending."""
        small = is_small(sizes, self.count, len(sources))[sources]
        kept = np.flatnonzero(small)
        if len(kept) >= self.count:
            return np.sort(kept[self._medoids(gradients, kept, self.count)])
        found = np.bincount(sources[~small], minlength=len(sizes))
        taken = [kept]
        for source, budget in enumerate(budgets(found, self.count - len(kept)).tolist()):
            if budget:
                own = np.flatnonzero((sources == source) & ~small)
                taken.append(own[self._medoids(gradients, own, budget)])
        return np.sort(np.concatenate(taken))

    def _medoids(self, gradients: SampleGradients, samples: Numbers, count: int) -> Numbers:
        if count >= len(samples):
            return np.arange(len(samples))
        places = largest(gradients.mean(samples), self.places)
        first, second = (self.state[name].reshape(-1)[places] for name in ("first", "second"))
        features = adam_features(
            gradients.at(samples, places), first, second, int(self.state["steps"])
        )
        return facility_location(distances(features), count)


def distances(features: Array) -> Array:
    """Return the sum of differences of every two rows, (rows, rows)."""
    found = np.empty((len(features), len(features)), np.float32)
    for row, own in enumerate(features):
        found[row] = np.abs(features - own).sum(axis=1)
    return found


def samples_in(batch: Batch) -> int:
    """Return how many samples a batch has."""
    return len(next(iter(batch.values())))


def some_of(batch: Batch, samples: NDArray[Any]) -> Batch:
    """Return a batch of some samples; weights of tokens become those of the smaller batch.

    They are such that the mean loss of the batch is that of its counted tokens, each alike.
    """
    found = {name: values[samples] for name, values in batch.items() if name != _SOURCE}
    if _WEIGHT in found:
        total = found[_WEIGHT].sum(dtype=np.float64)
        found[_WEIGHT] = found[_WEIGHT] * np.float32(len(samples) / max(total, 1e-30))
    return found


def _finite(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise NonFinite("a loss of a candidate is not finite")
    return values
