"""`edge-train bench sd15-hours`: how long a word takes at the size of Stable Diffusion 1.5.

The default of two ways at 512 pixels, and at 256 for a first phase in smaller pictures. The plan is
asked as a user asks it. Measured are some steps, with as many evaluations, of the same command:
its steps are then counted to the default's end. Random weights cost what real ones cost.
"""

import json
import os
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edge_train import bench
from edge_train.bench.sd15 import make_model
from edge_train.cli.options import Words
from edge_train.errors import TrainingStopped
from edge_train.formats.embedded import DATA
from edge_train.memory.fresh import command as command_of
from edge_train.memory.link import ENVIRONMENT
from edge_train.records import journal
from edge_train.records.folder import RunFolder
from edge_train.tasks import open_job

_SIZES = (512, 256)
_EXACT, _ZO = "exact gradient, int8 on torch", "zo, int8-fast on ONNX Runtime"
_STEPS = 2  # that are taken; the last of them is evaluated
_HEAD = ("way", "pixels", "steps", "plan says", "s a step", "s an evaluation", "by them")


@dataclass(frozen=True)
class Cost:
    """Seconds of a run's parts.

    Attributes:
      begin: before its first step: weights, photos, the first evaluation.
    """

    begin: float
    step: float
    evaluation: float

    def hours(self, steps: int, every: int) -> float:
        """Return the hours of a run without its pictures.

        >>> Cost(100, 10, 50).hours(steps=250, every=50)
        0.7916666666666666
        """
        evaluations = -(-steps // every)
        return (self.begin + steps * self.step + evaluations * self.evaluation) / 3600


def main(out: Path, seeds: int) -> str:
    """Export, plan and take steps, each in a fresh process; return a Markdown table.

    Args:
      out: where model, artifacts and runs are kept; what is there is not made again.
      seeds: ignored: time does not depend on them.

    Raises:
      TrainingStopped: a command did not end well.
    """
    del seeds
    model = out / "sd15-random"
    if not (model / "model_index.json").is_file():
        make_model(model)
    rows = []
    for size in _SIZES:
        artifact = out / f"sd15-int8-fast-{size}"
        if not artifact.is_dir():
            options = ("--quant", "int8-fast", "--resolution", str(size), "--threads", "1")
            _done("export", str(model), str(artifact), *options)
        pixels = ("--resolution", str(size))
        rows.append(_row(out, _EXACT, size, ("--model", str(model), "--quant", "int8", *pixels)))
        rows.append(_row(out, _ZO, size, ("--model", str(artifact), "--method", "zo")))
    return bench.table(_HEAD, rows)


def _row(out: Path, way: str, size: int, options: tuple[str, ...]) -> list[str]:
    method = () if "--method" in options else ("--method", "backprop")
    words = (*options, *method, "--class", "thing", "--threads", "1", "--no-previews")
    photos = str(DATA / "photos" / "bag")
    planned = json.loads(_done("plan", photos, *words, "--json"))["predicted_seconds"]
    run = out / f"sd15-hours-{'zo' if way == _ZO else 'exact'}-{size}"
    ends = ("--steps", str(_STEPS), "--evaluate-every", str(_STEPS))
    cost = _cost(run, (photos, *words, *ends))
    steps, every = _default((photos, *words))
    return [
        way,
        str(size),
        str(steps),
        f"{planned / 3600:.1f} h",
        f"{cost.step:.1f}",
        f"{cost.evaluation:.1f}",
        f"{cost.hours(steps, every):.1f} h",
    ]


def _cost(run: Path, words: tuple[str, ...]) -> Cost:
    bench.run(run, *words)
    records, _ = journal.read(RunFolder(run).journal)
    seconds = [record["seconds"] for record in records if record["kind"] == "step"]
    *plain, last = seconds
    step = statistics.median(plain)
    return Cost(records[0]["seconds"], step, max(last - step, 0.0))


def _default(words: tuple[str, ...]) -> tuple[int, int]:
    """Return steps of the default, and those between its evaluations."""
    recipe = open_job(Words(words, resumable=False).read()).recipe
    assert recipe.steps is not None
    assert recipe.evaluate_every is not None
    return recipe.steps, recipe.evaluate_every


def _done(*words: str) -> str:
    command, one = command_of(list(words)), {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one)
    if done.returncode != 0:
        raise TrainingStopped(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout
