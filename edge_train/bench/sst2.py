"""`edge-train bench sst2`: a pretrained encoder learns classes of texts, by every method.

The same weights, texts and batches; what differs is what is trained and by which rule. Rates are
chosen first, for all ways with the same care: by the loss on held-out texts that are not those of
the score, with another seed and a third of the steps. A run that is finished is read and not run
again, so the whole can be done in sittings.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench.tuning import best, losses_by_rate, words
from edge_train.errors import InputError
from edge_train.records import checkpoint, journal
from edge_train.records.folder import RunFolder
from edge_train.tasks.classify.texts import Example, read_examples
from edge_train.units import format_bytes

_STEPS, _CHOICE_SHARE = 432, 1 / 3  # of 16 texts: one epoch of SST-2, and what chooses a rate
_CHOICE_SEED = 1000
_OPTIONS = (
    *("--task", "classify", "--runtime", "torch", "--threads", "1"),
    *("--length", "32", "--samples", "16"),
)


@dataclass(frozen=True)
class _Way:
    """A way to train.

    Attributes:
      options: of the command line.
      rate: where the search for one begins; with `search` off, the one that is used.
      longer: how many times more steps.
      seeds: at most so many.
    """

    options: tuple[str, ...]
    rate: float
    search: bool = True
    longer: int = 1
    seeds: int = 1_000_000


_WAYS: dict[str, _Way] = {
    "AdamW, all weights": _Way(("--method", "adamw"), 1e-4),
    "q-galore, rank 64": _Way(  # its scale is sqrt(width / rank): steps as long as AdamW's
        ("--method", "q-galore", "--rank", "64", "--refresh-every", "25", "--scale", "2.45"), 2e-4
    ),
    "LoRA, rank 8": _Way(("--method", "lora", "--rank", "8"), 4e-3),
    "head": _Way(("--method", "adamw", "--trainable", "head"), 1e-2),
    # One pass of the encoder serves all directions of a head. Queries and rate were found on stored
    # outputs of the encoder for 2400 training texts, by the loss on dev texts.
    "zo, head": _Way(
        (
            *("--method", "zo", "--trainable", "head"),
            *("--queries", "32", "--epsilon", "0.1"),
        ),
        3e-2,
        search=False,
        longer=5,
        seeds=1,
    ),
}
_FULL = next(iter(_WAYS))
_HELD_OUT = 256
_HEAD = (
    *("way", "rate", "test accuracy", "mean", "minus full"),
    *("optimizer", "peak", "of which training", "step", "forwards", "backwards"),
)


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    limit: int = _STEPS,
) -> str:
    """Choose rates, train with seeds 0, 1, ... in fresh processes; return a Markdown table.

    Args:
      data: folder with train, dev and test files of labeled texts.
      model: folder of a transformers encoder or classifier.
      limit: steps of a run with gradients.

    Raises:
      InputError: one of them was not named, or has too few texts.
    """
    if data is None or model is None or not all((data / f"{p}.tsv").is_file() for p in _PARTS):
        raise InputError(
            "bench sst2 needs a folder with train.tsv, dev.tsv and test.tsv, lines of a text, a "
            "tab and a label, and an encoder: --data FOLDER --model FOLDER."
        )
    parts = {part: read_examples(data / f"{part}.tsv") for part in _PARTS}
    choice, whole = out / "sst2-choice", out / "sst2-texts"
    _write(choice, train=parts["train"], dev=parts["dev"][:_HELD_OUT])  # and no test texts
    _write(whole, **parts)
    few = round(_CHOICE_SHARE * limit)

    def loss(rate: float) -> float:
        report = _train(out, name, rate, few, _CHOICE_SEED, choice, model)
        return float(report["eval"]["last"])

    rates: dict[str, dict[float, float]] = {}
    for name, way in _WAYS.items():
        rates[name] = losses_by_rate(loss, way.rate) if way.search else {way.rate: 0.0}
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in _WAYS}
    for seed in range(seeds):  # ways in turn, so that a sitting that ends early has all of them
        for name, way in _WAYS.items():
            if seed < way.seeds:
                run = _train(out, name, best(rates[name]), limit, seed, whole, model)
                reports[name].append(run)
    return "\n\n".join(
        [
            f"{model.name}: {limit} steps of 16 texts of at most 32 tokens, one thread; without "
            f"gradients {_WAYS['zo, head'].longer} times as many. Rates by the loss on "
            f"{min(len(parts['dev']), _HELD_OUT)} held-out texts after {few} steps with "
            "another seed. Accuracy of the best of two evaluations on "
            f"{reports[_FULL][0]['metrics']['scored_examples']} test texts, seeds in their order; "
            "optimizer bytes hold for all that is trained; the peak is that of a fresh process "
            "with its interpreter and libraries.",
            bench.table(_HEAD, [_row(n, rates[n], own, reports) for n, own in reports.items()]),
        ]
    )


_PARTS = ("train", "dev", "test")


def _train(
    out: Path, name: str, rate: float, steps: int, seed: int, data: Path, model: Path
) -> dict[str, Any]:
    way = _WAYS[name]
    run = out / f"sst2-{_slug(name)}-{steps}-rate{rate:g}-seed{seed}"
    steps *= way.longer
    options = ["--data", str(data), "--model", str(model), "--seed", str(seed)]
    options += ["--steps", str(steps), "--evaluate-every", str(-(-steps // 2))]
    report = bench.run(run, *options, *_OPTIONS, *way.options, "--learning_rate", str(rate))
    [*_, newest] = sorted(RunFolder(run).checkpoints.glob("step-*.safetensors"))
    state = checkpoint.load(newest).state.values()
    report["state_bytes"] = sum(part.nbytes for parts in state for part in parts.values())
    records, _ = journal.read(RunFolder(run).journal)
    report["evaluation_peak_bytes"] = records[0]["peak_bytes"]
    return report


def _row(
    name: str,
    rates: dict[float, float],
    own: Sequence[dict[str, Any]],
    every: dict[str, list[dict[str, Any]]],
) -> list[str]:
    right = [100 * report["metrics"]["accuracy"] for report in own]
    full = [100 * report["metrics"]["accuracy"] for report in every[_FULL][: len(own)]]
    less = [a - b for a, b in zip(right, full, strict=True)]
    doubt = f" ± {statistics.stdev(less) / math.sqrt(len(less)):.1f}" if len(less) > 1 else ""
    peak = max(report["training_peak_bytes"] for report in own)
    more = max(r["training_peak_bytes"] - r["evaluation_peak_bytes"] for r in own)
    return [
        name,
        words(rates) if _WAYS[name].search else f"{best(rates):g}",
        ", ".join(f"{share:.1f} %" for share in right),
        f"{statistics.mean(right):.1f} %",
        "-" if name == _FULL else f"{statistics.mean(less):+.1f}{doubt}",
        format_bytes(own[0]["state_bytes"]),
        format_bytes(peak),
        format_bytes(more),
        f"{statistics.median(report['seconds_per_step'] for report in own):.2f} s",
        str(own[0]["forwards"]),
        str(own[0]["backwards"]),
    ]


def _write(folder: Path, **parts: Sequence[Example]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, examples in parts.items():
        lines = "".join(f"{example.text}\t{example.label}\n" for example in examples)
        (folder / f"{name}.tsv").write_text(lines, encoding="utf-8")


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-")
