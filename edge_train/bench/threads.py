"""Threads that are measured, on two cores of which another program keeps one busy.

`edge-train bench threads` starts that program itself, at the lowest priority, and trains a small
model folder (the embedded model's, named as a user names one, on torch) in fresh processes: with
one thread, with the number that the run measures, and with two. Wall and processor time are those
of a step, the median of a run, as the run's own observer sees its steps go by.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_train import bench
from edge_train.errors import InputError, TrainingStopped
from edge_train.formats.embedded import MODEL_FOLDER, PHOTOS
from edge_train.memory.fresh import module
from edge_train.protocols import StepRecord
from edge_train.run.session import run
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

_CORES = 2
_BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
_STEPS = 20
_WAYS = {"one, named": 1, "measured": None, "two, named": 2}
_WANTED = 1.2


def main(out: Path, seeds: int) -> str:
    """Train every way, `seeds` times one after the other; return a Markdown table.

    Raises:
      InputError: there are no two cores to use here.
    """
    out.mkdir(parents=True, exist_ok=True)
    here = sorted(os.sched_getaffinity(0))[:_CORES] if hasattr(os, "sched_getaffinity") else []
    if len(here) < _CORES:
        raise InputError(f"bench threads needs {_CORES} cores to use; there are {len(here)}.")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _WAYS}
    with _busy(here[-1]):
        for _ in range(seeds):
            for name, threads in _WAYS.items():
                found[name].append(_fresh(threads, here, out))
    one = {key: _middle(found["one, named"], key) for key in ("wall", "processor")}
    rows = []
    for name, runs in found.items():
        wall, processor = _middle(runs, "wall"), _middle(runs, "processor")
        counts = ", ".join(f"{taken['threads']:.0f}" for taken in runs)
        ratios = [wall / one["wall"], processor / one["processor"]]
        times = [f"{1000 * seconds:.0f} ms" for seconds in (wall, processor)]
        rows.append([name, counts, *times, *(f"{ratio:.2f}" for ratio in ratios)])
    head = ["threads", "taken", "a step, wall", "processor", "wall over one", "processor over one"]
    return f"{bench.table(head, rows)}\n\nWanted of the measured one: at most {_WANTED} both."


def _middle(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(taken[key] for taken in runs)


@contextmanager
def _busy(core: int) -> Iterator[None]:
    """Keep a core busy with another program at the lowest priority."""
    program = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:
        os.sched_setaffinity(program.pid, {core})
        os.setpriority(os.PRIO_PROCESS, program.pid, 19)
        yield
    finally:
        program.kill()
        program.wait()


def _fresh(threads: int | None, cores: list[int], out: Path) -> dict[str, float]:
    """Return what a step takes in a fresh process that may use these cores."""
    words = json.dumps({"threads": threads, "cores": cores, "out": str(out)})
    done = subprocess.run(
        module("edge_train.bench.threads", [words]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TrainingStopped(f"bench threads: {done.stderr.strip()[-500:]}")
    print(done.stdout.strip(), file=sys.stderr, flush=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


class _Clocks:
    """An `Observer` that reads both clocks after every step."""

    def __init__(self) -> None:
        self.read: list[tuple[float, float]] = []

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Do nothing."""

    def stepped(self, record: StepRecord, best: tuple[int, float] | None) -> None:
        """Read the clocks."""
        self.read.append((time.perf_counter(), time.process_time()))

    def said(self, text: str) -> None:
        """Do nothing."""

    def ended(self, status: str) -> None:
        """Do nothing."""

    def seconds(self, which: int) -> float:
        """Return the median of what one clock ran on between two steps."""
        pairs = zip(self.read[1:], self.read, strict=False)
        return statistics.median(later[which] - earlier[which] for later, earlier in pairs)


def _train(threads: int | None, cores: list[int], out: str) -> dict[str, float]:
    os.sched_setaffinity(0, cores)
    clocks = _Clocks()
    with tempfile.TemporaryDirectory(dir=out) as name:
        recipe = PersonalizeRecipe(
            model=str(MODEL_FOLDER),
            photos=str(PHOTOS),
            class_word="bag",
            runtime="torch",
            threads=threads,
            steps=_STEPS,
            evaluate_every=_STEPS,
            previews=False,
            out=str(Path(name) / "run"),
        )
        run(recipe, clocks)
        with (Path(name) / "run" / "journal.jsonl").open() as journal:
            taken = json.loads(journal.readline())["facts"]["threads"]
    return {"threads": taken, "wall": clocks.seconds(0), "processor": clocks.seconds(1)}


if __name__ == "__main__":
    print(json.dumps(_train(**json.loads(sys.argv[1]))))
