"""What the steps of a recipe hold and take, in a process that does nothing else.

`python -m edge_train.bench.step_cost RECIPE.toml STEPS` prints one JSON object: bytes held above
what the process held with its data loaded (by the kernel's peak counter, and what Python's own
tracer counts of arrays), and processor seconds a step.
"""

import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.loop import Loop
from edge_train.memory.guard import Guard
from edge_train.memory.measure import give_back_memory, measure
from edge_train.recipe import Recipe
from edge_train.records.folder import RunFolder
from edge_train.records.journal import Journal
from edge_train.run.scratch import BENCH, scratch
from edge_train.tasks import open_job, read_recipe


def step_cost(recipe: Recipe, steps: int) -> dict[str, float]:
    """Take steps of a new run, without evaluations and checkpoints; return what they cost."""
    job = open_job(recipe)
    with scratch(prefix=BENCH) as folder:
        job.load()
        job.prepare(folder, lambda line: None)
        _warm_up()
        give_back_memory()
        before = measure().resident_bytes
        forget_peak()
        loop = open_loop(job, folder)
        seconds = seconds_of(loop.step, steps)
        held = measure().peak_bytes - before
        tracemalloc.start()
        loop = open_loop(job, folder)
        for step in range(min(steps, 5)):
            loop.step(step)
        _, traced = tracemalloc.get_traced_memory()
    return {"held_bytes": held, "array_bytes": traced, "step_seconds": float(np.median(seconds))}


def seconds_of(take: Callable[[int], object], steps: int) -> list[float]:
    """Return the processor seconds of every step.

    Args:
      take: takes the step of a number.
    """
    seconds = []
    for step in range(steps):
        start = time.process_time()
        take(step)
        seconds.append(time.process_time() - start)
    return seconds


def open_loop(job: Any, folder: Path) -> Loop:
    """Return the loop of a run whose data is prepared, without evaluations and checkpoints."""
    estimator, transform = job.method(0.0, {})
    return Loop(
        runtime=job.open_runtime(),
        task=job.task(),
        estimator=estimator,
        transform=transform,
        guard=Guard(None, lambda: 0),
        journal=Journal(RunFolder(folder).journal),
        checkpoints=folder,
        seed=job.recipe.seed,
        evaluate_every=1,
        patience=0,
    )


def _warm_up() -> None:
    """Let libraries make the buffers that they keep, so that no method pays for them."""
    square = np.ones((256, 256), np.float32)
    np.random.Generator(np.random.Philox(0)).standard_normal(8)
    np.tanh(square @ square)


def forget_peak() -> None:
    """Let the kernel's peak counter start again from what is held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # then the peak of loading counts too, an upper bound


if __name__ == "__main__":
    print(json.dumps(step_cost(read_recipe(Path(sys.argv[1])), int(sys.argv[2]))))
