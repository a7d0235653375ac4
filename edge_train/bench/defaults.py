"""`edge-train bench defaults`: what default settings do to a language model that has weights.

Every file of a folder is trained on in every way, with all defaults but the number of steps and the
size of a step, by the real command. What is told is the loss on text of the same file that was held
out and chose nothing, after the last step over before the first. A run that is finished is read and
not run again, one that was stopped goes on.
"""

from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.errors import InputError
from edge_train.records import journal
from edge_train.records.folder import RunFolder

_STEPS, _SEQUENCES, _LENGTH = 40, 2, 128
_WAYS: dict[str, tuple[str, ...]] = {
    "auto": (),
    "adamw, all weights": ("--trainable", "all", "--method", "adamw"),
    "scale-sgd, all weights": ("--trainable", "all", "--method", "scale-sgd"),
}
_BETTER, _HARMED = 0.97, 1.0  # losses after over before: what most should reach, and none exceed
_HEAD = ("data", "way", "rate", "warm-up", "loss before", "after", "after / before")


def main(
    out: Path, seeds: int, model: Path | None = None, data: Path | None = None, limit: int = _STEPS
) -> str:
    """Train on every file of a folder in every way; return a Markdown table.

    Args:
      seeds: ignored: one each.
      model: a folder or GGUF file with weights.
      data: a folder of texts and chats.
      limit: steps of a run.

    Raises:
      InputError: model or data are not named, or the folder is empty.
    """
    del seeds
    if model is None or data is None:
        raise InputError("bench defaults needs --model FILE.gguf and --data FOLDER.")
    files = sorted(path for path in data.iterdir() if path.is_file()) if data.is_dir() else []
    if not files:
        raise InputError(f"bench defaults needs a folder of texts, {data} holds none.")
    rows, shares = [], []
    for file in files:
        for way, words in _WAYS.items():
            report = _train(out, file, way, model, words, limit)
            first, last = report["eval"]["first"], report["eval"]["last"]
            shares.append(last / first)
            rate, warmup = f"{report['keys']['learning_rate']:g}", str(report["keys"]["warmup"])
            cells = (f"{first:.4f}", f"{last:.4f}", f"{shares[-1]:.3f}")
            rows.append((file.name, way, rate, warmup, *cells))
    better = sum(share <= _BETTER for share in shares)
    harmed = sum(share > _HARMED for share in shares)
    return (
        f"{model.name}, {limit} steps of {_SEQUENCES} sequences of at most {_LENGTH} tokens, one "
        f"thread, all other settings by default. At most {_BETTER} in {better} of {len(shares)}, "
        f"above {_HARMED:.2f} in {harmed}.\n\n{bench.table(_HEAD, rows)}"
    )


def _train(
    out: Path, file: Path, way: str, model: Path, words: tuple[str, ...], steps: int
) -> dict[str, Any]:
    name = way.replace(",", "").replace(" ", "-")
    options = [
        *("--task", "language-model", "--threads", "1", "--data", str(file)),
        *("--model", str(model), "--steps", str(steps), "--evaluate-every", str(steps)),
        *("--samples", str(_SEQUENCES), "--length", str(_LENGTH)),
    ]
    run = out / f"defaults-{file.stem}-{name}-{steps}"
    report = bench.run(run, *options, *words)
    records, _ = journal.read(RunFolder(run).journal)
    return {**report, "keys": records[0]["recipe"]["values"]}
