"""`edge-train bench lowrank`: update rules of small state against AdamW, on a text classifier.

The same random weights, the same batches in the same order, exact gradients: what differs is the
rule that makes updates of them.
"""

import statistics
from pathlib import Path
from typing import Any

from edge_train import bench, checkpoint
from edge_train.bench.small_classifier import make_classifier
from edge_train.errors import InputError
from edge_train.tasks.texts import read_examples
from edge_train.units import format_bytes

_LAYERS, _WIDTH, _VOCABULARY = 2, 128, 4000
_OPTIONS = (
    *("--task", "classify", "--runtime", "torch", "--threads", "1", "--length", "64"),
    *("--steps", "300", "--learning_rate", "1e-3", "--evaluate-every", "50"),
)
_RANK = ("--rank", "16", "--refresh-every", "50")
# Scales that make an update as long as Adam's would be in as many coordinates; not searched for.
_METHODS: dict[str, tuple[str, ...]] = {
    "adamw": (),
    "adamw8bit": (),
    "galore": (*_RANK, "--scale", "1"),
    "q-galore": (*_RANK, "--scale", "1"),
    "dct-adamw": ("--rank", "16", "--refresh-every", "1", "--scale", "1"),
    "apollo": (*_RANK, "--scale", str(_WIDTH / 16)),
    "apollo-mini": ("--refresh-every", "50", "--scale", str(_WIDTH)),
    "frugal": (*_RANK, "--scale", "0.1"),
}
_HEAD = ("method", "state of layers", "all state", "best dev loss", "test accuracy", "median step")


def main(out: Path, seeds: int, data: Path | None = None) -> str:
    """Train with seeds 0, 1, ... by every rule in fresh processes; return a Markdown table.

    Raises:
      InputError: no folder with `train.tsv` and `dev.tsv` was named.
    """
    if data is None or not (data / "train.tsv").is_file():
        raise InputError(
            "bench lowrank needs a folder with train.tsv and dev.tsv, lines of a text, a tab and a "
            "label: --data FOLDER."
        )
    model = out / "small-classifier"
    if not (model / "config.json").is_file():
        texts = [example.text for example in read_examples(data / "train.tsv")]
        make_classifier(model, texts, layers=_LAYERS, width=_WIDTH, vocabulary=_VOCABULARY)
    reports: dict[str, list[dict[str, Any]]] = {method: [] for method in _METHODS}
    for seed in range(seeds):  # methods in turn, so that all meet the machine as it is
        for method, options in _METHODS.items():
            run = out / f"lowrank-{method}-seed{seed}"
            words = ("--data", str(data), "--model", str(model), "--seed", str(seed))
            report = bench.run(run, *words, *_OPTIONS, "--method", method, *options)
            reports[method].append({**report, **_state_bytes(run)})
    exact = reports["adamw"][0]
    rows = [
        [
            method,
            f"{format_bytes(own[0]['layers'])} ({100 * own[0]['layers'] / exact['layers']:.1f} %)",
            f"{format_bytes(own[0]['all'])} ({100 * own[0]['all'] / exact['all']:.1f} %)",
            ", ".join(f"{report['eval']['best']:.3f}" for report in own),
            ", ".join(f"{100 * report['metrics']['accuracy']:.1f} %" for report in own),
            f"{statistics.median(report['seconds_per_step'] for report in own):.3f} s",
        ]
        for method, own in reports.items()
    ]
    return "\n\n".join(
        [
            f"{_LAYERS} layers of width {_WIDTH} with random weights, rank 16 (apollo-mini 1), 300 "
            f"steps of 32 texts of 64 tokens, one thread, {seeds} seeds in their order. Embeddings "
            f"of {_VOCABULARY} tokens keep Adam's moments.",
            bench.table(_HEAD, rows),
        ]
    )


def _state_bytes(run: Path) -> dict[str, int]:
    """Return the bytes of transform state in a run's newest checkpoint, by whose it is."""
    [*_, newest] = sorted((run / "checkpoints").glob("step-*.safetensors"))
    state = checkpoint.load(newest).state
    own = {name: sum(part.nbytes for part in parts.values()) for name, parts in state.items()}
    layers = sum(size for name, size in own.items() if ".layer." in name)
    return {"layers": layers, "all": sum(own.values())}
