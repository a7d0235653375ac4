"""A loss that is linear in every block, and a loop that trains it by a method of the registry."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from recipes import transform_of

from edge_train.arrays.factored import Factors
from edge_train.arrays.parameters import Parameters
from edge_train.estimators.backprop import Backprop
from edge_train.loop import Loop

SAMPLES = 7
SHAPES = {"wide": (16, 40), "tall": (40, 16), "embed_tokens": (300, 16), "norm": (16,)}


class Linear:
    """A loss that is linear in every block; of a matrix the gradient is factors."""

    def __init__(self, kind):
        draw = np.random.default_rng(3)
        blocks = {n: draw.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
        self.parameters = kind(blocks)
        self.seen = []
        self.poisoned = None

    def backward(self, batch, apply):
        self.seen.append(len(batch["left"]))
        count = np.float32(len(batch["left"]))
        for name, shape in SHAPES.items():
            left = batch["left"][:, : shape[0]].copy()
            if name == self.poisoned and len(self.seen) == 2:
                left[0, 0] = np.nan
            right = batch["right"][:, : shape[-1]] / count
            apply(name, Factors(left, right) if len(shape) == 2 else left.mean(axis=0))
        return batch["left"].sum(axis=1)


@dataclass(frozen=True)
class Task:
    samples: int

    def batch(self, key):
        draw, shape = np.random.default_rng(key.step), (self.samples, 300)
        return {n: draw.standard_normal(shape).astype(np.float32) for n in ("left", "right")}


def loop_by(transform, kind=Parameters, samples=SAMPLES, **options):
    """Return a loop of an update rule; its weights are held by `kind`."""
    guard = SimpleNamespace(check=lambda step: SimpleNamespace(peak_bytes=1, resident_bytes=1))
    rest = {"guard": guard, "journal": None, "checkpoints": None, "seed": 0, "patience": 0}
    return Loop(
        Linear(kind), Task(samples), Backprop(), transform, evaluate_every=1, **rest, **options
    )


def loop_of(method, kind=Parameters, samples=SAMPLES, **keys):
    """Return a loop of a method with these keys."""
    return loop_by(transform_of(method, schedule="constant", steps=9, **keys), kind, samples)
