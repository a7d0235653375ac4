"""`edge-train bench sst2`: a pretrained encoder learns classes of texts, by every method.

The same weights, texts and batches; what differs is what is trained and by which rule. Rates are
chosen first, by the loss on held-out texts, with another seed and half the steps; two methods of a
line of `_SAME_RATE` share the choice, and where one rate is named it was not searched for.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train import bench, checkpoint, journal
from edge_train.errors import InputError
from edge_train.tasks.texts import Example, read_examples
from edge_train.units import format_bytes

_TEXTS, _HELD_OUT = 1600, 256
_STEPS, _CHOICE_STEPS = 100, 50  # of 16 texts: one epoch, and half of one
_CHOICE_SEED = 1000
_OPTIONS = (
    *("--task", "classify", "--runtime", "torch", "--threads", "1"),
    *("--length", "32", "--samples", "16"),
)
_RANK = ("--rank", "16", "--refresh-every", "25", "--scale", "4")
_MEZO = ("--method", "zo", "--preset", "mezo")
_FORWARD_STEPS = 2  # of forward-only training for one with gradients


@dataclass(frozen=True)
class _Way:
    """A way to train: its options, the rates to choose from, and how many times more steps."""

    options: tuple[str, ...]
    rates: tuple[float, ...]
    longer: int = 1


_WAYS: dict[str, _Way] = {
    "AdamW, all weights": _Way(("--method", "adamw"), (1e-4, 2e-4, 4e-4)),
    "q-galore": _Way(("--method", "q-galore", *_RANK), (1e-4, 2e-4, 4e-4)),
    "q-galore, rank 64": _Way(
        ("--method", "q-galore", "--rank", "64", "--refresh-every", "25", "--scale", "2.45"), ()
    ),
    "LoRA, rank 8": _Way(("--method", "lora", "--rank", "8"), (1e-3, 4e-3)),
    "head": _Way(("--method", "adamw", "--trainable", "head"), (3e-3, 1e-2)),
    "zo, head": _Way((*_MEZO, "--trainable", "head"), (1e-3, 1e-2), _FORWARD_STEPS),
    "zo, LoRA": _Way((*_MEZO, "--trainable", "lora"), (1e-3,), _FORWARD_STEPS),
    "zo, all weights": _Way(_MEZO, (1e-5,), _FORWARD_STEPS),
    "galore": _Way(("--method", "galore", *_RANK), ()),
    "adamw8bit": _Way(("--method", "adamw8bit"), ()),
    "apollo-mini": _Way(("--method", "apollo-mini", "--refresh-every", "25", "--scale", "128"), ()),
}
_SAME_RATE = {
    "adamw8bit": "AdamW, all weights",
    "q-galore, rank 64": "AdamW, all weights",  # its scale is sqrt(width / rank): steps as long
    "galore": "q-galore",
    "apollo-mini": "q-galore",
}
_FULL = next(iter(_WAYS))
_HEAD = (
    *("way", "rate", "test accuracy", "mean", "minus full"),
    *("optimizer", "peak", "of which training", "step", "forwards", "backwards"),
)


def main(out: Path, seeds: int, data: Path | None = None, model: Path | None = None) -> str:
    """Choose rates, train with seeds 0, 1, ... in fresh processes; return a Markdown table.

    Args:
      data: folder with train, dev and test files of labeled texts.
      model: folder of a transformers encoder or classifier.

    Raises:
      InputError: one of them was not named, or has too few texts.
    """
    if data is None or model is None or not all((data / f"{p}.tsv").is_file() for p in _PARTS):
        raise InputError(
            "bench sst2 needs a folder with train.tsv, dev.tsv and test.tsv, lines of a text, a "
            "tab and a label, and an encoder: --data FOLDER --model FOLDER."
        )
    train = read_examples(data / "train.tsv")[:_TEXTS]
    dev = read_examples(data / "dev.tsv")[:_HELD_OUT]
    choice, whole = out / "sst2-choice", out / "sst2-texts"
    _write(choice, train=train, dev=dev)
    _write(whole, train=train, dev=dev, test=read_examples(data / "test.tsv"))
    rates = {name: _rate(out, name, choice, model) for name in _WAYS}
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in _WAYS}
    for seed in range(seeds):  # ways in turn, so that all meet the machine as it is
        for name in _WAYS:
            run = out / f"sst2-{_slug(name)}-seed{seed}"
            reports[name].append(_train(run, name, rates[name], _STEPS, seed, whole, model))
    return "\n\n".join(
        [
            f"{model.name}: {_TEXTS} texts of 32 tokens, {_STEPS} steps of 16, rank 16 where none "
            f"is named, one thread; {_FORWARD_STEPS} times the steps without gradients. Accuracy "
            f"on {reports[_FULL][0]['metrics']['scored_examples']} test texts, seeds in their "
            f"order ({seeds}); optimizer bytes hold for all that is trained; the peak is that of a "
            "fresh process with its interpreter and libraries.",
            bench.table(_HEAD, [_row(n, rates[n], own, reports) for n, own in reports.items()]),
        ]
    )


_PARTS = ("train", "dev", "test")


def _rate(out: Path, name: str, data: Path, model: Path) -> float:
    """Return the rate with the lowest loss on held-out texts."""
    name = _SAME_RATE.get(name, name)
    if len(_WAYS[name].rates) == 1:
        return _WAYS[name].rates[0]
    losses = {}
    for rate in _WAYS[name].rates:
        run = out / f"sst2-{_slug(name)}-rate{rate:g}"
        report = _train(run, name, rate, _CHOICE_STEPS, _CHOICE_SEED, data, model)
        losses[rate] = report["eval"]["best"]
    return min(losses, key=lambda rate: losses[rate])


def _train(
    run: Path, name: str, rate: float, steps: int, seed: int, data: Path, model: Path
) -> dict[str, Any]:
    way = _WAYS[name]
    steps *= way.longer
    words = ["--data", str(data), "--model", str(model), "--seed", str(seed)]
    words += ["--steps", str(steps), "--evaluate-every", str(steps // 2)]
    report = bench.run(run, *words, *_OPTIONS, *way.options, "--learning_rate", str(rate))
    [*_, newest] = sorted((run / "checkpoints").glob("step-*.safetensors"))
    state = checkpoint.load(newest).state.values()
    report["state_bytes"] = sum(part.nbytes for parts in state for part in parts.values())
    records, _ = journal.read(run / "journal.jsonl")
    report["evaluation_peak_bytes"] = records[0]["peak_bytes"]
    return report


def _row(
    name: str, rate: float, own: Sequence[dict[str, Any]], every: dict[str, list[dict[str, Any]]]
) -> list[str]:
    right = [100 * report["metrics"]["accuracy"] for report in own]
    full = [100 * report["metrics"]["accuracy"] for report in every[_FULL]]
    less = [a - b for a, b in zip(right, full, strict=True)]
    doubt = f" ± {statistics.stdev(less) / math.sqrt(len(less)):.1f}" if len(less) > 1 else ""
    peak = max(report["training_peak_bytes"] for report in own)
    more = max(r["training_peak_bytes"] - r["evaluation_peak_bytes"] for r in own)
    return [
        name,
        f"{rate:g}",
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
