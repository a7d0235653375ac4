"""Heads on the same features, each tuned by the same grid on pictures that are no test."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.bench.images_features import Labels
from edge_train.losses import cross_entropy
from edge_train.optim.transforms import Adam, Chain, LearningRate, WeightDecay
from edge_train.rng import Key
from edge_train.tasks.images.engine import HeadEngine, start_of
from edge_train.tasks.images.heads import Shape, heads, stages_of

KINDS = (
    ("linear", ""),
    ("cosine", ""),
    ("tversky", "ignorematch"),
    ("tversky", "subtractmatch"),
    ("two-layer", ""),
)
RATES, DECAYS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), (0.0, 0.3, 1.0, 3.0)
_FINAL_RATE = 0.1


@dataclass(frozen=True)
class Setting:
    """How a head is trained."""

    rate: float
    decay: float


GRID = tuple(Setting(*one) for one in product(RATES, DECAYS))  # the same for every head
FEW = tuple(
    Setting(*one) for one in product(RATES[1:5], DECAYS[:2])
)  # where each is tried 31 times


def trained(
    kind: tuple[str, str],
    setting: Setting,
    inputs: Array,
    labels: Labels,
    classes: int,
    *,
    steps: int,
    batch: int,
    seed: int,
) -> HeadEngine:
    """Return a head trained by AdamW as a run does it, on standardized features."""
    name, difference = kind
    head, width = heads.get(name), inputs.shape[1]
    shape = Shape(
        width=width,
        classes=classes,
        size=head.size(width, classes),
        difference=difference or "ignorematch",
    )
    stages = stages_of(head, shape)
    engine = HeadEngine(stages, Parameters(start_of(stages, seed)))
    decay = (WeightDecay(setting.decay),) if setting.decay else ()
    rule = Chain((Adam(), *decay, LearningRate(setting.rate, steps, _FINAL_RATE)))
    state = {name: rule.init(block) for name, block in engine.parameters.items()}
    for step, index in zip(range(steps), _batches(len(labels), batch, seed), strict=False):

        def apply(name: str, gradient: Array, step: int = step) -> None:
            update = rule.update(gradient, state[name], engine.parameters[name])
            engine.parameters.subtract(name, update, Key(seed, step))

        engine.backward({"inputs": inputs[index], "labels": labels[index]}, apply)
    return engine


def _batches(count: int, size: int, seed: int) -> Iterator[Labels]:
    epoch, size = 0, min(size, count)
    while True:
        order = Key(seed, epoch).generator("epoch").permutation(count)
        for part in range(count // size):
            yield order[part * size : (part + 1) * size]
        epoch += 1


def judged(engine: HeadEngine, inputs: Array, labels: Labels) -> tuple[float, float]:
    """Return the mean loss and the accuracy."""
    logits = engine.outputs(inputs, engine.parameters)
    losses, _ = cross_entropy(logits, labels)
    return float(losses.mean()), float((logits.argmax(axis=1) == labels).mean())


def parameters_of(kind: tuple[str, str], width: int, classes: int) -> int:
    """Return how many numbers a head trains."""
    head = heads.get(kind[0])
    shape = Shape(width=width, classes=classes, size=head.size(width, classes))
    return sum(block.size for block in start_of(stages_of(head, shape), 0).values())


def standardized(known: Array, *others: Array) -> tuple[Array, ...]:
    """Return features as a run makes them comparable: by the mean and size of the known ones."""
    mean = known.mean(axis=0)
    scale = np.sqrt(np.square(known - mean).mean())
    return tuple(((one - mean) / scale).astype(np.float32) for one in (known, *others))
