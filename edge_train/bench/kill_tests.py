"""`edge-train bench kill-tests`: three ideas for fewer forwards, each by what would rule it out.

A momentum probe (E2), photos at half the size first (E6) and a Bayes filter over the answer (E8),
on the photos that the program ships. What is there is read, so it can be done in sittings.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.arrays.types import Array
from edge_train.bench.bayes_filter import BayesFilter
from edge_train.bench.noise_parts import squared_mean
from edge_train.bench.token_steps import TokenSteps
from edge_train.estimators.directions import Directions
from edge_train.formats.atomic import write_bytes
from edge_train.formats.embedded import DATA
from edge_train.rng import Key, direction
from edge_train.tasks.personalize.recipe import ISOTROPIC, PRIOR, PersonalizeRecipe

_PHOTOS = ("bag", "sneaker", "three")
_EVALUATED = 64  # samples of the fixed batch: the run's own 16 leave a tenth of noise
_MARKS = (300, 600, 1250)  # forwards
_MEMORY = 0.9  # of the mean of steps, as momentum's
_GRADIENTS, _TOGETHER = 96, 16  # of single samples at each size
_POINTS = (0, 50)  # exact steps
_DRAWN = 8  # the key of gradients that no run draws


@dataclass
class Probe:
    """Directions of which the last is the mean of earlier steps, as long as the others are."""

    queries: int
    mean: Array | None = None

    def __call__(self, key: Key, query: int, name: str, shape: tuple[int, ...]) -> Array:
        """Return z of one query."""
        length = 0.0 if self.mean is None else float(np.linalg.norm(self.mean))
        if self.mean is None or length == 0 or query < self.queries - 1:
            return direction(key, query, name, shape)
        return self.mean * np.float32(np.sqrt(self.mean.size) / length)

    def add(self, step: Array) -> None:
        """Take a step into the mean."""
        before = np.zeros_like(step) if self.mean is None else self.mean
        self.mean = np.float32(_MEMORY) * before + np.float32(1 - _MEMORY) * step


@dataclass
class Curve:
    """Losses of the fixed batch at `_MARKS`, and what the way says of itself at the end."""

    losses: list[float] = field(default_factory=list)
    says: str = ""


def main(out: Path, seeds: int, samples: int = 2) -> str:
    """Run the three; return Markdown tables.

    Args:
      out: where curves are kept.
      samples: how many of the concepts bag, sneaker, three, in this order.
    """
    out.mkdir(parents=True, exist_ok=True)
    concepts = _PHOTOS[:samples]
    return "\n\n".join([_curves(out, concepts, seeds), _sizes(out, concepts)])


def _recipe(concept: str, seed: int, **options: object) -> PersonalizeRecipe:
    given = {"photos": str(DATA / "photos" / concept), "seed": seed, "threads": 1, **options}
    return PersonalizeRecipe(**given)  # type: ignore[arg-type] # keys by name


def _open(concept: str, seed: int, **options: object) -> TokenSteps:
    steps = TokenSteps.open(_recipe(concept, seed, **options))
    steps.task = replace(steps.task, evaluation_samples=_EVALUATED)
    return steps


def _zo(concept: str, seed: int) -> Curve:
    return _taken(_open(concept, seed, method="zo", steps=_MARKS[-1] // 5, directions=ISOTROPIC))


def _along_prior(concept: str, seed: int) -> Curve:
    return _taken(_open(concept, seed, method="zo", steps=_MARKS[-1] // 5, directions=PRIOR))


def _probed(concept: str, seed: int) -> Curve:
    """E2: the mean of earlier steps is one of the directions, and no schedule shortens steps."""
    steps = _open(concept, seed, method="zo", steps=_MARKS[-1] // 5, schedule="constant")
    probe = Probe(steps.estimator.queries)
    draw: Directions = probe
    steps.estimator = replace(steps.estimator, draw=draw)
    return _taken(steps, probe.add)


def _taken(steps: TokenSteps, told: Callable[[Array], None] = lambda step: None) -> Curve:
    found, number = Curve(), 0
    for mark in _MARKS:
        while steps.forwards + steps.step_forwards <= mark:
            before = steps.point["token"]
            steps.take(number)
            told(before - steps.point["token"])
            number += 1
        found.losses.append(steps.held_loss(steps.point))
    steps.runtime.close()
    return found


def _filtered(concept: str, seed: int) -> Curve:
    """E8: what is known of the answer is a mean and a covariance, and both are updated."""
    steps = _open(concept, seed, method="zo", steps=1, directions=PRIOR)
    own = BayesFilter.open(steps)
    found, number = Curve(), 0
    for mark in _MARKS:
        while own.forwards + own.step_forwards <= mark:
            own.take(number)
            number += 1
        found.losses.append(steps.held_loss(steps.point))
    found.says = f"{own.expected_gap:.2g} of the gap expected to be left"
    steps.runtime.close()
    return found


_WAYS: dict[str, Callable[[str, int], Curve]] = {
    "zo, isotropic": _zo,
    "zo, a momentum probe and no schedule (E2)": _probed,
    "zo along the prior": _along_prior,
    "a Bayes filter with that prior (E8)": _filtered,
}


def _curves(out: Path, concepts: tuple[str, ...], seeds: int) -> str:
    rows = []
    for way, run in _WAYS.items():
        for concept in concepts:
            own = []
            for seed in range(seeds):
                number = list(_WAYS).index(way)
                path = out / f"kill-{number}-{concept}-seed{seed}.json"
                if not path.exists():
                    write_bytes(path, json.dumps(asdict(run(concept, seed))).encode())
                own.append(Curve(**json.loads(path.read_text("utf-8"))))
            losses = np.array([curve.losses for curve in own]).mean(axis=0)
            rows.append([way, concept, *(f"{loss:.4f}" for loss in losses), own[0].says])
    head = ["way", "concept", *(f"after {mark:,} forwards" for mark in _MARKS), "it says"]
    said = f"Loss of {_EVALUATED} fixed samples, mean of {seeds} seeds."
    return f"{said}\n\n{bench.table(head, rows)}"


def _sizes(out: Path, concepts: tuple[str, ...]) -> str:
    """E6: whether half the size asks the same of a token as the whole."""
    rows = []
    for concept in concepts:
        path = out / f"kill-sizes-{concept}.json"
        if not path.exists():
            write_bytes(path, json.dumps(_agreement(concept)).encode())
        rows += [[concept, *map(str, row)] for row in json.loads(path.read_text("utf-8"))]
    head = ["concept", "exact steps", "cosine of mean gradients", "length, half over whole"]
    head.append("processor seconds, half over whole")
    said = f"Mean gradients of {_GRADIENTS} single samples at 16 pixels and at 32."
    return f"{said}\n\n{bench.table(head, rows)}"


def _agreement(concept: str) -> list[list[str]]:
    whole, half = (
        _open(concept, 0, method="backprop", steps=_POINTS[-1], resolution=side, flips=False)
        for side in (32, 16)
    )
    rows, taken = [], 0
    for point in _POINTS:
        while taken < point:
            whole.take(taken)
            taken += 1
        (first, one), (second, other) = (_gradients(s, whole.point) for s in (whole, half))
        product = float(first.mean(axis=0) @ second.mean(axis=0))
        lengths = [squared_mean(own) for own in (first, second)]
        seen = min(lengths) > 0
        cosine = f"{product / np.sqrt(lengths[0] * lengths[1]):.2f}" if seen else "no mean seen"
        ratio = f"{np.sqrt(lengths[1] / lengths[0]):.2f}" if seen else "-"
        rows.append([str(point), cosine, ratio, f"{other / one:.2f}"])
    for steps in (whole, half):
        steps.runtime.close()
    return rows


def _gradients(steps: TokenSteps, point: dict[str, Array]) -> tuple[NDArray[np.float64], float]:
    """Return gradients of single samples (samples, numbers), and the processor seconds of all."""
    found, began = [], time.process_time()
    for first in range(0, _GRADIENTS, _TOGETHER):
        batch = replace(steps.task, samples=_TOGETHER).batch(Key(_DRAWN, first))
        vectors = {name: np.repeat(block[None], _TOGETHER, 0) for name, block in point.items()}
        _, gradients = steps.runtime.backward_each(batch, vectors)
        found.append(gradients["token"].reshape(_TOGETHER, -1).astype(np.float64))
    return np.concatenate(found), time.process_time() - began
