"""`edge-train bench slopes`: slopes from the model's answers and from losses, by radius.

Both come from the same forward passes. What they are compared with are exact slopes of the float
model, at the start word and where exact steps have brought it: there slopes are small.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_train import bench
from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.bench.engine_quality import exported
from edge_train.bench.token_steps import TokenSteps
from edge_train.estimators.residual_slopes import residual_slopes
from edge_train.estimators.slope_table import Exact, exact_slopes, relate
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.artifact import open_artifact
from edge_train.formats.embedded import EMBEDDED
from edge_train.optim.transforms import root_mean_square
from edge_train.quant import of_artifacts
from edge_train.rng import Key
from edge_train.tasks.personalize import encoding, parts
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

_BEFORE = 0.1  # the radius that a run wanted before, or an artifact's smallest one
TIMES = (1, 2, 4, 8, 16)  # that radius
_POINTS = (0, 100)  # exact steps before slopes are measured
_RATE = 0.2  # of those steps, relative to the token's root mean square
_DIRECTIONS, _SAMPLES = 8, 24
_STEP = -8  # the key of draws that nothing else makes


@dataclass(frozen=True)
class Known:
    """Exact slopes of a batch at a point of the float model, along the directions of a seed."""

    point: dict[str, Array]
    batch: Batch
    key: Key
    exact: Exact


@dataclass(frozen=True)
class Both:
    """Correlation with exact slopes: of differences of losses, and of what answers give.

    `curvature` is the mean of c along a direction over that at the smallest radius: 1 where the
    model answers in a straight line and rounding adds nothing.
    """

    losses: float
    answers: float
    curvature: float


def main(out: Path, seeds: int) -> str:
    """Measure every profile at every radius; return Markdown tables.

    Args:
      out: where artifacts are exported to; those that are there are used.
      seeds: batches and sets of directions.
    """
    artifacts = {quant: exported(out / f"engine-{quant}", quant) for quant in of_artifacts()}
    known = _known(seeds)
    said = (
        f"{seeds} seeds x {_DIRECTIONS} directions x {_SAMPLES} samples, one-sided, against the "
        "float model's gradient: correlation from losses / from answers; curvature over that at "
        "the radius that runs took before."
    )
    tables = [said]
    for steps in _POINTS:
        rows = []
        for quant, path in artifacts.items():
            radius = max(_BEFORE, open_artifact(path).manifest.safe_epsilon)
            found = measured(path, known[steps], [radius * times for times in TIMES])
            cells = [f"{b.losses:.3f} / {b.answers:.3f}; {b.curvature:.2f}" for b in found]
            rows.append([quant, f"{radius:g}", *cells])
        head = ["profile", "radius before", *(f"{times} times" for times in TIMES)]
        tables += [f"After {steps} exact steps:", bench.table(head, rows)]
    return "\n\n".join(tables)


def _recipe(model: str) -> PersonalizeRecipe:
    return PersonalizeRecipe(model=model, flips=False, threads=1)


def _scale(start: Point) -> Mapping[str, float]:
    return {name: root_mean_square(block) for name, block in start.items()}


def _known(seeds: int) -> dict[int, list[Known]]:
    """Return exact slopes along exact training, by the number of its steps."""
    recipe = replace(_recipe(EMBEDDED), steps=_POINTS[-1], relative_rate=_RATE)
    steps = TokenSteps.open(recipe, method="backprop")
    scale = _scale(steps.job.start)
    drawing = replace(steps.task, samples=_SAMPLES)
    found: dict[int, list[Known]] = {}
    for number in range(max(_POINTS) + 1):
        if number in _POINTS:
            found[number] = []
            for seed in range(seeds):
                key = Key(seed, _STEP)
                batch = drawing.batch(key)
                exact = exact_slopes(steps.runtime, batch, scale, _DIRECTIONS, key)
                found[number].append(Known(steps.point, batch, key, exact))
        if number < max(_POINTS):
            steps.take(number)
    steps.runtime.close()
    return found


def measured(artifact: Path, known: list[Known], radii: list[float]) -> list[Both]:
    """Return how both slopes of an artifact relate to exact ones, radius by radius."""
    job = parts.check(_recipe(str(artifact)))
    ids = {"ids": np.concatenate([one.batch["ids"].ravel() for one in known])}
    runtime = parts.open_runtime(job, Parameters(job.start), ids)
    cache = encoding.encode_photos(job, *encoding.load_job_photos(job))
    task, scale = parts.build_task(job, cache), _scale(job.start)
    estimator = ZerothOrder(1.0, scale)
    rows: list[Both] = []
    first = 0.0
    for radius in radii:
        each = []
        for one in known:
            moved = [
                estimator.perturbed(one.point, one.key, query, radius)
                for query in range(_DIRECTIONS)
            ]
            losses = runtime.forward(one.batch, [*moved, one.point]).astype(np.float64)
            plain = (losses[:-1] - losses[-1]) / radius
            found = residual_slopes(runtime, task, one.batch, moved, [one.point], radius)
            each.append(
                (
                    relate(radius, plain, one.exact.slopes).correlation,
                    relate(radius, found.slopes, one.exact.slopes).correlation,
                    float(np.trace(found.curvature)) / _DIRECTIONS,
                )
            )
        losses_mean, answers_mean, curvature = (
            statistics.mean(column) for column in zip(*each, strict=True)
        )
        first = first or curvature
        rows.append(Both(losses_mean, answers_mean, curvature / first))
    runtime.close()
    return rows
