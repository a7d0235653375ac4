"""What the steps of a run's recipe take and hold, its block schedule included, in a fresh process.

`python -m edge_train.bench.turn_cost RUN STEPS` reads the recipe of a run folder and prints one
JSON object: processor seconds of a step, those of them that its update rules took, and the bytes
that steps add to what the process held with its weights in it.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edge_train.bench.step_cost import forget_peak, open_loop, seconds_of
from edge_train.formats.atomic import write_bytes
from edge_train.memory.fresh import module
from edge_train.memory.measure import give_back_memory, measure
from edge_train.methods import schedules
from edge_train.records.folder import RunFolder
from edge_train.run.scratch import BENCH, scratch
from edge_train.tasks import open_job, read_recipe


def turn_cost(run: Path, steps: int) -> dict[str, float]:
    """Take steps of a run's recipe from its start, after one that nobody counts."""
    job = open_job(read_recipe(RunFolder(run).recipe))
    with scratch(prefix=BENCH) as folder:
        job.load()
        job.prepare(folder, lambda line: None)
        loop = open_loop(job, folder)
        name = job.recipe.block_schedule
        if name is not None:
            schedule = schedules.get(name).build(job.recipe, loop.runtime.parameters, {})
            loop.schedule = schedule
            for block in [n for n in loop.rules if not schedule.trains(0, n)]:
                loop.state[block] = {}
        give_back_memory()
        before = measure().resident_bytes
        forget_peak()
        apply, updates = loop.apply, [0.0]

        def timed(*arguments: Any, **words: Any) -> None:
            began = time.process_time()
            apply(*arguments, **words)
            updates[-1] += time.process_time() - began

        def step(number: int) -> None:
            updates.append(0.0)
            loop.step(number)

        loop.apply = timed  # type: ignore[method-assign]
        seconds = seconds_of(step, steps + 1)[1:]
        held = measure().peak_bytes - before
    return {
        "step_seconds": statistics.median(seconds),
        "update_seconds": statistics.median(updates[2:]),
        "rest_seconds": statistics.median(
            whole - own for whole, own in zip(seconds, updates[2:], strict=True)
        ),
        "held_bytes": held,
    }


def measured(run: Path, steps: int) -> dict[str, float]:
    """Return `turn_cost` of a fresh process; kept beside the run, and read there the next time."""
    kept = run.parent / f"{run.name}-cost.json"
    if not kept.is_file():
        command = module("edge_train.bench.turn_cost", [str(run), str(steps)])
        done = subprocess.run(command, capture_output=True, check=True)
        write_bytes(kept, done.stdout)
    found: dict[str, float] = json.loads(kept.read_text("utf-8"))
    return found


if __name__ == "__main__":
    print(json.dumps(turn_cost(Path(sys.argv[1]), int(sys.argv[2]))))
