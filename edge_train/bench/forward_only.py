"""`edge-train bench forward-only`: how many steps `zo` takes where `adamw` learns the same.

A small Llama learns one text, all of its weights by exact gradients. Then adapters of it learn
another one, by `adamw` and by `zo` at some rates, everything else by default but the size of a
step, which is the same for all. What is told is the loss on held-out text of the second, and after
how many steps `adamw` had it. A run that is finished is read and not run again, one that was
stopped goes on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench.small_llama import write_folder
from edge_train.errors import InputError
from edge_train.records import journal
from edge_train.records.folder import RunFolder

_TOKENS, _LENGTH, _SEQUENCES, _RANK = 512, 32, 8, 4
_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 176,
    "max_position_embeddings": 256,
}
_BASE_STEPS, _ADAM_STEPS, _ZO_STEPS = 1000, 300, 2000
_RATES = (None, 3e-4, 1e-3)  # of zo; None: the default
_HEAD = ("method", "rate", "steps", "passes of a sequence", "loss before", "after", "as adamw")


def main(out: Path, seeds: int, data: Path | None = None, limit: int = _ZO_STEPS) -> str:
    """Train the base and its adapters; return a Markdown table.

    Args:
      seeds: ignored: one each.
      data: a folder with `base.txt`, which the base learns, and `adapter.txt`.
      limit: steps of zo.

    Raises:
      InputError: the texts are not there.
    """
    del seeds
    texts = [] if data is None else [data / name for name in ("base.txt", "adapter.txt")]
    if not texts or not all(path.is_file() for path in texts):
        raise InputError("bench forward-only needs --data FOLDER with base.txt and adapter.txt.")
    base = _base(out, texts[0])
    adam = _run(out / "forward-only-adamw", base, texts[1], "adamw", _ADAM_STEPS, 10)
    curve = _losses(out / "forward-only-adamw")
    rows = [_row("adamw", adam, curve, curve)]
    for rate in _RATES:
        name = f"forward-only-zo-{rate or 'default'}-{limit}"
        words = () if rate is None else ("--lr", f"{rate:g}")
        zo = _run(out / name, base, texts[1], "zo", limit, max(1, limit // 20), words)
        rows.append(_row("zo", zo, _losses(out / name), curve))
    return (
        f"An adapter of rank {_RANK} beside a Llama of {adam['weights']:,} weights, {_SEQUENCES} "
        f"sequences of {_LENGTH} tokens a step, one thread.\n\n{bench.table(_HEAD, rows)}"
    )


def _base(out: Path, text: Path) -> Path:
    """Return the folder of a small Llama that has learned a text."""
    start, run = out / "forward-only-start", out / "forward-only-base"
    if not (start / "tokenizer.json").is_file():
        write_folder(start, text, _TOKENS, **_SIZES)
    bench.run(
        run,
        *("--task", "language-model", "--threads", "1", "--data", str(text), "--lr", "2e-3"),
        *("--model", str(start), "--steps", str(_BASE_STEPS), "--method", "adamw"),
        *("--trainable", "all", "--samples", "16", "--length", str(_LENGTH)),
    )
    return run / "model"


def _run(
    out: Path,
    base: Path,
    text: Path,
    method: str,
    steps: int,
    every: int,
    words: Sequence[str] = (),
) -> dict[str, Any]:
    report = bench.run(
        out,
        *("--task", "language-model", "--threads", "1", "--data", str(text)),
        *("--model", str(base), "--trainable", "lora", "--method", method, "--rank", str(_RANK)),
        *("--steps", str(steps), "--evaluate-every", str(every)),
        *("--samples", str(_SEQUENCES), "--length", str(_LENGTH)),
        *words,
    )
    records, _ = journal.read(RunFolder(out).journal)
    values = records[0]["recipe"]["values"]
    return {**report, "rate": values["learning_rate"], "weights": records[0]["facts"]["parameters"]}


def _losses(out: Path) -> list[tuple[int, float]]:
    """Return steps done, and the loss on held-out text after them."""
    records, _ = journal.read(RunFolder(out).journal)
    steps = [one for one in records if one["kind"] == "step"]
    return [(one["step"] + 1, one["eval"]) for one in steps if one.get("eval") is not None]


def _row(
    method: str,
    report: dict[str, Any],
    losses: Sequence[tuple[int, float]],
    curve: Sequence[tuple[int, float]],
) -> tuple[str, ...]:
    steps, last = losses[-1]
    reached = next((step for step, loss in curve if loss <= last), None)
    first = report["eval"]["first"]
    if method == "adamw":
        same = "-"
    elif last >= first:
        same = "none"
    else:
        same = f"more than {curve[-1][0]}" if reached is None else f"at most {reached}"
    passes = f"{report['forwards']} forward"
    if report["backwards"]:
        passes += f", {report['backwards']} back"
    rate = f"{report['rate']:g}"
    return method, rate, str(steps), passes, f"{first:.4f}", f"{last:.4f}", same
