"""`edge-train bench sd15-hours`: how long a word takes at the size of Stable Diffusion 1.5.

The default of two ways at 512 pixels, and at 256 for a first phase in smaller pictures. The plan is
asked as a user asks it. Measured are some steps, with as many evaluations, of the same command:
its steps are then counted to the default's end. Random weights cost what real ones cost.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from edge_train import bench
from edge_train.bench.sd15 import make_model
from edge_train.formats.embedded import DATA
from edge_train.recipe import required
from edge_train.records import journal
from edge_train.records.folder import RunFolder
from edge_train.tasks import open_job
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

_SIZES = (512, 256)
_WAYS = {"backprop": "exact gradient, int8 on torch", "zo": "zo, int8-fast on ONNX Runtime"}
_PHOTOS, _CLASS = str(DATA / "photos" / "bag"), "thing"
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
            bench.command("export", str(model), str(artifact), *options)
        small = ("--quant", "int8", "--resolution", str(size))
        for name, words in (
            ("backprop", ("--model", str(model), *small)),
            ("zo", ("--model", str(artifact))),
        ):
            run = out / f"sd15-hours-{name}-{size}"
            rows.append([_WAYS[name], str(size), *_cells(run, (*words, "--method", name), name)])
    return bench.table(_HEAD, rows)


def _cells(run: Path, options: tuple[str, ...], method: str) -> list[str]:
    words = (_PHOTOS, *options, "--class", _CLASS, "--threads", "1", "--no-previews")
    planned = json.loads(bench.command("plan", *words, "--json"))["predicted_seconds"]
    cost = _cost(run, (*words, "--steps", str(_STEPS), "--evaluate-every", str(_STEPS)))
    steps, every = _default(method)
    return [
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


def _default(method: str) -> tuple[int, int]:
    """Return steps of a method's default, on any model, and those between its evaluations."""
    recipe = open_job(PersonalizeRecipe(photos=_PHOTOS, class_word=_CLASS, method=method)).recipe
    return required(recipe.steps), required(recipe.evaluate_every)
