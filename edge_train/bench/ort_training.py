"""`edge-train bench ort-training`: one small transformer on labeled texts, by two engines.

The same random weights, the same batches in the same order, the same update rule: what differs is
who computes losses and gradients.
"""

import statistics
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench.small_classifier import make_classifier
from edge_train.errors import InputError
from edge_train.records import journal
from edge_train.records.folder import RunFolder
from edge_train.tasks.classify.export import export_training
from edge_train.tasks.classify.texts import read_examples
from edge_train.units import format_bytes

_LAYERS, _WIDTH, _VOCABULARY = 2, 128, 4000
_OPTIONS = (
    *("--task", "classify", "--method", "backprop", "--threads", "1"),
    *("--steps", "300", "--learning_rate", "1e-3", "--evaluate-every", "50", "--length", "64"),
)
_HEAD = ("engine", "first loss", "test accuracy", "seconds per step", "peak in training")


def main(out: Path, seeds: int, data: Path | None = None) -> str:
    """Train with seeds 0, 1, ... on both engines in fresh processes; return a Markdown table.

    Raises:
      InputError: no folder with `train.tsv` and `dev.tsv` was named.
    """
    if data is None or not (data / "train.tsv").is_file():
        raise InputError(
            "bench ort-training needs a folder with train.tsv and dev.tsv, lines of a text, a tab "
            "and a label: --data FOLDER."
        )
    model, artifact = out / "small-classifier", out / "small-classifier-ort"
    if not (model / "config.json").is_file():
        texts = [example.text for example in read_examples(data / "train.tsv")]
        make_classifier(model, texts, layers=_LAYERS, width=_WIDTH, vocabulary=_VOCABULARY)
    if not artifact.is_dir():
        export_training(str(model), artifact, head_only=False, threads=1, say=print)
    engines: dict[str, tuple[str, ...]] = {
        "torch": ("--model", str(model)),
        "ort-training": ("--model", str(artifact)),
        "ort-training, lean": ("--model", str(artifact), "--lean"),
    }
    reports: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    for seed in range(seeds):  # engines in turn, so that both meet the machine as it is
        for engine, options in engines.items():
            run = out / f"classify-{engine.replace(', ', '-')}-seed{seed}"
            words = ("--data", str(data), *options, "--seed", str(seed))
            report = bench.run(run, *words, *_OPTIONS)
            records, _ = journal.read(RunFolder(run).journal)
            report["losses"] = [r["loss"] for r in records if r["kind"] == "step"]
            reports[engine].append(report)
    rows = [
        [
            engine,
            f"{own[0]['losses'][0]:.6f}",
            ", ".join(f"{100 * r['metrics']['accuracy']:.1f} %" for r in own),
            f"{statistics.median(r['seconds_per_step'] for r in own):.3f}",
            format_bytes(max(r["training_peak_bytes"] for r in own)),
        ]
        for engine, own in reports.items()
    ]
    by_seed = list(zip(*reports.values(), strict=True))
    first = max(abs(a["losses"][0] - b["losses"][0]) for a, *rest in by_seed for b in rest)
    means = [statistics.mean(r["metrics"]["accuracy"] for r in own) for own in reports.values()]
    return "\n\n".join(
        [
            f"{_LAYERS} layers of width {_WIDTH}, {seeds} seeds, 32 texts of 64 tokens a "
            "step, one thread; accuracies in the order of seeds.",
            bench.table(_HEAD, rows),
            f"First losses differ by {first:.1e} at most; mean accuracies by "
            f"{100 * (max(means) - min(means)):.2f} points.",
        ]
    )
