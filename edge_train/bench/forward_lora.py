"""`edge-train bench forward-lora`: a LoRA from forward passes alone, on the embedded model.

The first matrix of each layer is kept, the second is learned from slopes along random directions:
so a perturbation of the layer lies in the span of the kept rows. They are the directions in which
the layer's inputs vary most, or random ones; beside both the exact gradient of both matrices.
"""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.adapter import names_of
from edge_train.optim.transforms import Adam
from edge_train.rng import Key, direction
from edge_train.run.scratch import BENCH, scratch
from edge_train.tasks import open_job
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.pictures import sample_latents
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

_FORWARDS, _QUERIES, _RADIUS, _PARTS = 1500, 4, 1e-2, 10
_LAST_RATE = 0.1  # share of the rate that a run of slopes ends with
_EXACT_STEPS, _EXACT_SAMPLES, _EXACT_RATE = 200, 4, 5e-4
_WORTH = 4  # forwards that a sample's exact gradient with recomputation is worth
_WAYS = (
    ("exact, rank 8", 8, _EXACT_RATE),
    ("inputs' span, rank 1", 1, 1e-2),
    ("random span, rank 1", 1, 1e-2),
    ("inputs' span, rank 1", 1, 3e-3),
    ("random span, rank 1", 1, 3e-3),
)
_HEAD = ("way", "rate", "numbers", "forwards", "loss before", "after", "class", "color", "ground")


def main(out: Path, seeds: int, limit: int = _FORWARDS) -> str:
    """Return the table.

    Args:
      out: where what was measured is kept, so that a bench that was stopped goes on.
      limit: forward passes of a run without gradients.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "forward-lora.jsonl"
    lines = kept.read_text().splitlines() if kept.is_file() else []
    known = {row["key"]: row for row in map(json.loads, lines)}
    rows = []
    for way, rank, rate in _WAYS:
        for seed in range(seeds):
            key = f"{way}, rate {rate:g}, {limit} forwards, seed {seed}"
            if key not in known:
                known[key] = {"key": key, **_measured(way, rank, rate, limit, seed)}
                with kept.open("a") as file:
                    file.write(json.dumps(known[key]) + "\n")
        found = [
            known[f"{way}, rate {rate:g}, {limit} forwards, seed {seed}"] for seed in range(seeds)
        ]
        rows.append([way, f"{rate:g}", *_cells(found)])
    return bench.table(_HEAD, rows)


def _cells(found: Sequence[dict[str, Any]]) -> list[str]:
    scores = ("class_accuracy", "color_accuracy", "background_accuracy")
    before, after = (float(np.mean([row[name] for row in found])) for name in ("before", "after"))
    shares = [bench.percent([row[name] for row in found]) for name in scores]
    first = found[0]
    return [str(first["numbers"]), str(first["forwards"]), f"{before:.4f}", f"{after:.4f}", *shares]


class _Seconds:
    """The second matrices of an adapted model as all of its parameters.

    Attributes:
      parameters: their blocks, the same storage as the model's.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        whole: Parameters = runtime.parameters
        seconds = [name for name in whole if name not in _firsts(whole)]
        self.parameters = Parameters.sharing({name: whole[name] for name in seconds})

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, samples)."""
        whole = self._runtime.parameters
        losses: Array = self._runtime.forward(batch, [{**whole, **point} for point in points])
        return losses


def _firsts(blocks: Point) -> set[str]:
    """Return the names of first matrices."""
    paths = {name.rpartition(".lora_")[0] for name in blocks}
    return {names_of(path)[0] for path in paths}


def _choose_first(way: str, runtime: Any, batch: Batch, rank: int, seed: int) -> None:
    """Put the rows that are kept into the first matrices: orthonormal ones, in place."""
    if way.startswith("inputs"):
        chosen = runtime.input_spans(batch, rank)
    else:
        chosen = {
            name: _orthonormal(Key(seed, 0), name, runtime.parameters[name].shape)
            for name in _firsts(runtime.parameters)
        }
    for name, rows in chosen.items():
        runtime.parameters[name][...] = rows


def _orthonormal(key: Key, name: str, shape: tuple[int, ...]) -> Array:
    rows: Array = direction(key, 0, name, shape)
    return np.ascontiguousarray(np.linalg.qr(rows.T)[0].T)


def _cosine(share: float) -> float:
    """Return 1 at the start of a run and 0 at its end."""
    return (1 + math.cos(math.pi * share)) / 2


def _measured(way: str, rank: int, rate: float, limit: int, seed: int) -> dict[str, Any]:
    exact = way.startswith("exact")
    recipe = PersonalizeRecipe(
        class_word="bag",
        trainable="lora",
        targets="to_q,to_k,to_v,to_out.0",
        rank=rank,
        threads=1,
        samples=_EXACT_SAMPLES if exact else 1,
        evaluation_samples=64,
        seed=seed,
    )
    job: Any = open_job(recipe)
    job.load()
    with scratch(prefix=BENCH) as folder:
        job.prepare(folder, lambda line: None)
    runtime, task = job.open_runtime(), job.task()
    evaluation, point = task.evaluation(), runtime.parameters

    def judged() -> float:
        return float(task.loss(runtime, evaluation, [point]).mean())

    if not exact:
        _choose_first(way, runtime, evaluation, rank, seed)
    before, began, curve = judged(), time.process_time(), []
    steps = _EXACT_STEPS if exact else limit // (_QUERIES + 1)
    learner = runtime if exact else _Seconds(runtime)
    trained: Parameters = learner.parameters
    transform = Adam() if exact else Adam(beta2=0.99)
    state = {name: transform.init(block) for name, block in trained.items()}
    estimator = ZerothOrder(_RADIUS, dict.fromkeys(trained, 1.0), _QUERIES, 1)
    forwards = 0
    for step in range(steps):
        turn = 1.0 if exact else _LAST_RATE + (1 - _LAST_RATE) * _cosine(step / steps)

        def apply(name: str, gradient: Array, turn: float = turn) -> None:
            moved = transform.update(gradient, state[name], trained[name])
            trained[name][...] -= np.float32(rate * turn) * np.asarray(moved)

        key = Key(seed, step)
        batch = task.batch(key)
        if exact:
            runtime.backward(batch, apply)
            forwards += _WORTH * _EXACT_SAMPLES
        else:
            forwards += estimator.estimate(learner, task, batch, key, apply).forwards
        if (step + 1) % max(steps // _PARTS, 1) == 0:
            curve.append((forwards, judged()))
    spent = time.process_time() - began
    latents = sample_latents(job._token_job, runtime, point, job._judge.prompts, together=64)
    scores = job._judge.score(parts.decode_latents(job._token_job, latents))
    numbers = sum(block.size for block in trained.values())
    return {
        **{name: value for name, value in scores.items() if name.endswith("accuracy")},
        "numbers": numbers,
        "forwards": forwards,
        "before": before,
        "after": curve[-1][1],
        "curve": curve,
        "seconds": spent,
    }
