"""`edge-train bench lowrank`: update rules of small state against AdamW, on a small Llama.

The same random weights, the same sequences in the same order, exact gradients: what differs is the
rule that makes updates of them, and for `q-galore int8` the weights.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train import bench, checkpoint, journal
from edge_train.bench.rule_cost import REFRESH, ROUNDS, step_seconds
from edge_train.bench.small_llama import write_folder
from edge_train.errors import InputError
from edge_train.units import format_bytes

_WIDTH, _LAYERS, _TOKENS, _STEPS, _RANK = 384, 6, 2048, 60, 64
_SIZES = {
    "hidden_size": _WIDTH,
    "intermediate_size": 1024,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 512,
}
_OPTIONS = (
    *("--task", "language-model", "--threads", "1", "--samples", "8", "--length", "32"),
    *("--learning_rate", "2e-3", "--evaluate-every", "30"),
)
_LOW = ("--rank", str(_RANK), "--refresh-every", "20")
# Scales that make an update as long as Adam's would be in as many coordinates, and FRUGAL's own for
# training from scratch; nothing was searched for.
_RUNS: dict[str, tuple[str, ...]] = {
    "adamw": ("--method", "adamw"),
    "adamw8bit": ("--method", "adamw8bit"),
    "galore": ("--method", "galore", *_LOW, "--scale", "1"),
    "q-galore": ("--method", "q-galore", *_LOW, "--scale", "1"),
    "q-galore int8": ("--method", "q-galore", "--quant", "int8", *_LOW, "--scale", "1"),
    "q-galore int4": ("--method", "q-galore", "--quant", "int4", *_LOW, "--scale", "1"),
    "dct-adamw": ("--method", "dct-adamw", "--rank", str(_RANK), "--scale", "1"),
    "apollo": ("--method", "apollo", *_LOW, "--scale", str(_WIDTH / _RANK)),
    "apollo-mini": ("--method", "apollo-mini", "--scale", str(_WIDTH)),
    "frugal": ("--method", "frugal", *_LOW, "--scale", "1"),
}
_SEQUENCES = (8, 32)  # of a step, and tokens in one
_HEAD = (
    *("method", "state", "held-out loss", "against adamw", "perplexity", "median step"),
    *("against adamw", "worst / median", "bits a projector value"),
)


def main(out: Path, seeds: int, data: Path | None = None, limit: int = _STEPS) -> str:
    """Train with seeds 0, 1, ... by every rule in fresh processes; return a Markdown table.

    Args:
      data: a text.
      limit: steps of a run.

    Raises:
      InputError: no text was named.
    """
    if data is None or not data.is_file():
        raise InputError("bench lowrank needs a text: --data FILE.")
    model = out / "small-llama"
    if not (model / "tokenizer.json").is_file():
        write_folder(model, data, _TOKENS, **_SIZES)
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in _RUNS}
    for seed in range(seeds):  # methods in turn, so that all meet the machine as it is
        for name, options in _RUNS.items():
            run = out / f"lowrank-{name.replace(' ', '-')}-{limit}-seed{seed}"
            words = ("--data", str(data), "--model", str(model), "--seed", str(seed))
            report = bench.run(run, *words, *_OPTIONS, "--steps", str(limit), *options)
            reports[name].append({**report, **_measured(run)})
    seconds = step_seconds(model, data, _SEQUENCES, _RUNS)
    rows = [_row(name, own, reports["adamw"], seconds) for name, own in reports.items()]
    parameters = format(_parameters(out, limit) / 1e6, ".1f")
    return "\n\n".join(
        [
            f"A Llama of {parameters} M random weights, rank {_RANK} (apollo-mini 1), {limit} "
            f"steps of 8 sequences of 32 tokens, one thread, {seeds} seeds. The embedding of "
            f"{_TOKENS} tokens keeps Adam's moments. Seconds are processor time of {ROUNDS} steps "
            f"in turn in one process, after a first one; bases are found every {REFRESH} of them.",
            bench.table(_HEAD, rows),
        ]
    )


def _row(
    name: str,
    own: list[dict[str, Any]],
    exact: list[dict[str, Any]],
    seconds: Mapping[str, Sequence[float]],
) -> list[str]:
    mean = statistics.mean(report["metrics"]["held_out_loss"] for report in own)
    aim = statistics.mean(report["metrics"]["held_out_loss"] for report in exact)
    median, exact_median = (statistics.median(seconds[which]) for which in (name, "adamw"))
    bits = own[0]["bits"]
    return [
        name,
        f"{format_bytes(own[0]['state'])} ({100 * own[0]['state'] / exact[0]['state']:.1f} %)",
        ", ".join(f"{report['metrics']['held_out_loss']:.3f}" for report in own),
        f"{100 * (mean / aim - 1):+.1f} %",
        f"{math.exp(mean):.1f}",
        f"{median:.2f} s",
        f"{median / exact_median:.2f}",
        f"{max(seconds[name]) / median:.2f}",
        f"{bits:.2f}" if bits else "-",
    ]


def _measured(run: Path) -> dict[str, float]:
    """Return bytes of state and bits a value of packed bases."""
    [*_, newest] = sorted((run / "checkpoints").glob("step-*.safetensors"))
    bytes_by_part: dict[str, int] = {}
    values = 0
    for parts in checkpoint.load(newest).state.values():
        for part, value in parts.items():
            kind = part.rpartition(".basis.")[2] if ".basis." in part else ""
            bytes_by_part[kind] = bytes_by_part.get(kind, 0) + value.nbytes
            values += 2 * value.size if kind == "codes" else 0
    packed = sum(bytes_by_part.get(kind, 0) for kind in ("codes", "low", "step"))
    return {
        "state": sum(bytes_by_part.values()),
        "bits": 8 * packed / values if values else 0.0,
    }


def _parameters(out: Path, limit: int) -> int:
    records, _ = journal.read(out / f"lowrank-adamw-{limit}-seed0" / "journal.jsonl")
    return int(records[0]["facts"]["parameters"])
