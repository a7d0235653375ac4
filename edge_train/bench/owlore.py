"""`edge-train bench owlore`: a few layers at a time against all of them, by low-rank updates.

The same weights, texts, batches and rule (galore at one rank and one rate); what differs is which
layers are trained: all, some that are drawn alike (lisa), or some that are drawn by their outliers
(owlore). `--model` is a GGUF of a chat model (then `--data` is a folder of chats, or of GSM8K) or
an encoder (then `--data` has train, dev and test files of labeled texts). What is finished is read
and not run again.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench import paired
from edge_train.bench.turn_cost import measured
from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes
from edge_train.units import format_bytes

_ALL, _LISA, _OWLORE = "all layers", "lisa", "owlore"
_COST_STEPS = 6  # steps whose median counts; as many in every way
_ROOM = 1.1  # times what the layers that rest leave of a step
_MOST_BYTES = 0.70  # of those of all layers, beside the weights
_HEAD = (
    *("layers", "score, seeds in their order", "mean", "minus all", "minus lisa"),
    *("step", "of which updates", "rest of all's", "beside weights", "of all's"),
)


@dataclass(frozen=True)
class _Part:
    """A model and what it learns.

    Attributes:
      options: of the command line, for all ways.
      layers: of the model, and how many are drawn.
      every: steps of a draw.
      steps: of a run.
      score: reads a number from a report; `form` shows it.
      better: 1 where a larger score is better, -1 where a smaller one is.
    """

    options: tuple[str, ...]
    layers: tuple[int, int]
    every: int
    steps: int
    says: str
    better: int


_CHATS = _Part(
    (
        *("--task", "language-model", "--trainable", "all", "--length", "128", "--samples", "1"),
        *("--method", "galore", "--rank", "128", "--refresh-every", "50", "--scale", "1"),
        *("--learning-rate", "1e-4", "--warmup", "2", "--evaluation-samples", "16"),
    ),
    layers=(30, 5),
    every=5,
    steps=20,
    says="held-out loss, lower is better; galore at rank 128 and rate 1e-4, a chat of at most 128 "
    "tokens a step",
    better=-1,
)
_TEXTS = _Part(
    (
        *("--task", "classify", "--runtime", "torch", "--length", "32", "--samples", "16"),
        *("--method", "galore", "--rank", "64", "--refresh-every", "50", "--scale", "2.45"),
        *(
            "--learning-rate",
            "2e-4",
        ),
    ),
    layers=(6, 2),
    every=15,
    steps=60,
    says="test accuracy in percent, higher is better; galore at rank 64 and rate 2e-4, 16 texts "
    "of at most 32 tokens a step",
    better=1,
)
_PROBLEMS = 240  # of GSM8K; a tenth is held out
_EXAMPLES = {"train": 10_000, "dev": 128, "test": 500}


def main(
    out: Path,
    seeds: int,
    model: Path | None = None,
    data: Path | None = None,
    limit: int | None = None,
) -> str:
    """Train in three ways with every seed; return a Markdown table.

    Args:
      model: a GGUF file, or the folder of an encoder.
      data: a folder with train.jsonl of GSM8K, or with train.tsv, dev.tsv and test.tsv.
      limit: steps of a run.

    Raises:
      InputError: one is not named, or they do not belong together.
    """
    if model is None or data is None:
        raise InputError(
            "bench owlore needs --model FILE.gguf --data FOLDER (train.jsonl of GSM8K), or "
            "--model ENCODER --data FOLDER (train.tsv, dev.tsv, test.tsv)."
        )
    is_text = model.suffix == ".gguf"
    part = _CHATS if is_text else _TEXTS
    place = out / f"owlore-{model.stem}"
    first = _first_lines(data, place / "data", is_text)
    steps = limit or part.steps
    words = ("--data", str(first), "--model", str(model), "--steps", str(steps), *part.options)
    ways = _ways(part)
    reports: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for seed in range(seeds):  # ways in turn, so that a sitting that ends early has all of them
        for way, options in ways.items():
            run = _place(place, way, steps, seed)
            more = ("--evaluate-every", str(steps), "--threads", "1", "--seed", str(seed))
            reports[way].append(bench.run(run, *words, *more, *options))
    costs = {way: measured(_place(place, way, steps, 0), _COST_STEPS) for way in ways}
    scores = {way: [_score(r, is_text) for r in own] for way, own in reports.items()}
    total, drawn = part.layers
    return (
        f"{model.name}: {drawn} of {total} layers, others every {part.every} steps, {steps} steps, "
        f"{seeds} seeds, one thread. Score: {part.says}. Differences are seed by seed, with their "
        f"95 % interval. Processor seconds of {_COST_STEPS} steps; bytes that steps add to what a "
        "process holds with its weights.\n\n"
        + bench.table(_HEAD, [_row(way, scores, costs) for way in ways])
        + "\n\n"
        + _verdict(part, scores, costs)
    )


def _ways(part: _Part) -> Mapping[str, tuple[str, ...]]:
    some = ("--sampled-layers", str(part.layers[1]), "--resample-every", str(part.every))
    turns = {name: ("--block-schedule", name, *some) for name in (_LISA, _OWLORE)}
    return {_ALL: (), **turns}


def _place(place: Path, way: str, steps: int, seed: int) -> Path:
    return place / f"{way.replace(' ', '-')}-{steps}-seed{seed}"


def _score(report: Mapping[str, Any], is_text: bool) -> float:
    metrics = report["metrics"]
    return float(metrics["held_out_loss"]) if is_text else 100 * float(metrics["accuracy"])


def _row(
    way: str, scores: Mapping[str, Sequence[float]], costs: Mapping[str, Mapping[str, float]]
) -> tuple[str, ...]:
    own, cost, every = scores[way], costs[way], costs[_ALL]
    return (
        way,
        ", ".join(f"{score:.3f}" for score in own),
        f"{statistics.mean(own):.3f}",
        *(paired.words(own, scores[other], 3) if way != other else "-" for other in (_ALL, _LISA)),
        f"{cost['step_seconds']:.2f} s",
        f"{cost['update_seconds']:.2f} s",
        f"{cost['rest_seconds'] / every['rest_seconds']:.2f}",
        format_bytes(round(cost["held_bytes"])),
        f"{100 * cost['held_bytes'] / every['held_bytes']:.0f} %",
    )


def _verdict(
    part: _Part, scores: Mapping[str, Sequence[float]], costs: Mapping[str, Mapping[str, float]]
) -> str:
    """Return which of the three numbers that were aimed at were reached, by owlore."""
    total, drawn = part.layers
    gain = part.better * (statistics.mean(scores[_OWLORE]) - statistics.mean(scores[_LISA]))
    step = costs[_OWLORE]["rest_seconds"] / costs[_ALL]["rest_seconds"]
    aim = _ROOM * (2 + drawn / total) / 3
    held = costs[_OWLORE]["held_bytes"] / costs[_ALL]["held_bytes"]
    found = (
        ("not worse than lisa in the mean", gain >= 0, f"{gain:+.3f}, above zero is better"),
        ("a step, updates apart", step <= aim, f"{step:.2f} of all's, at most {aim:.2f}"),
        (
            "bytes beside the weights",
            held <= _MOST_BYTES,
            f"{100 * held:.0f} % of all's, at most {100 * _MOST_BYTES:.0f} %",
        ),
    )
    return " ".join(f"{w}: {n} ({'reached' if ok else '**missed**'})." for w, ok, n in found)


def _first_lines(data: Path, place: Path, is_text: bool) -> Path:
    """Return a folder with the first lines of a data set's files.

    Raises:
      InputError: a file is missing.
    """
    kind = ".jsonl" if is_text else ".tsv"
    counts = {"train": _PROBLEMS} if is_text else _EXAMPLES
    for name, count in counts.items():
        source = data / f"{name}{kind}"
        if not source.is_file():
            raise InputError(f"bench owlore: {source} is missing; name the folder that has it.")
        with source.open("rb") as file:
            lines = b"".join(islice(file, count))
        place.mkdir(parents=True, exist_ok=True)
        write_bytes(place / source.name, lines)
    return place
