"""`edge-train bench colm --model ENCODER`: the same of a pretrained encoder that learns classes.

Three sources with labels of their own: reviews, good or bad (SST-2, 70 percent), problems that ask
how many or how much (GSM8K, 25) and speeches of two people of plays (5). Losses of the trained
model are on held-out texts of each.
"""

import csv
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench.colm import ARMS, cells_of
from edge_train.errors import InputError

SOURCES = {"reviews": 1400, "problems": 500, "plays": 100}  # texts to train on
_FILES = ("sst2/train.tsv", "gsm8k/train.jsonl", "tinyshakespeare/input.txt")
_HELD = 80  # texts of each source that are judged
_STEPS, _LENGTH, _TOGETHER = 40, 32, 40
_ARMS = ("random 8", "all 32", "colm", "loss")
_SPEAKERS = ("GLOUCESTER", "DUKE VINCENTIO")
_LEAST_WORDS = 8
_SCORES: Mapping[str, Mapping[str, int]] = {
    "smallest source": {"plays": 1},
    "sources alike": dict.fromkeys(SOURCES, 1),
    "as the mixture": SOURCES,
}
_HEAD = ("batch", *(cell for name in _SCORES for cell in (f"loss, {name}", "gap closed")))
_OPTIONS = (
    *("--task", "classify", "--runtime", "torch", "--threads", "1", "--length", str(_LENGTH)),
    *("--method", "adamw", "--lr", "1e-4", "--text-column", "text", "--label-column", "label"),
)
_Row = tuple[str, str, str]  # text, label, source


def table_of(out: Path, seeds: int, model: Path, data: Path, limit: int | None) -> str:
    """Train every kind of batch with every seed; return a Markdown table.

    Args:
      data: a folder with sst2/train.tsv, gsm8k/train.jsonl and tinyshakespeare/input.txt.
      limit: steps.

    Raises:
      InputError: one is missing.
    """
    for name in _FILES:
        if not (data / name).is_file():
            raise InputError(f"bench colm --model needs {data / name}, which is missing.")
    sources = {"reviews": _reviews(data), "problems": _problems(data), "plays": _plays(data)}
    texts, held = out / "colm-texts", dict[str, Sequence[_Row]]()
    kept: list[tuple[float, _Row]] = []
    dev: list[_Row] = []
    for name, count in SOURCES.items():
        rows = list(sources[name])
        if len(rows) < count + _HELD:
            raise InputError(f"{name}: {len(rows)} texts; {count + _HELD} are needed.")
        kept += [((n + 0.5) / count, row) for n, row in enumerate(rows[:count])]
        held[name] = rows[count : count + _HELD]
        dev += held[name]
    _write(texts / "train.csv", [row for _, row in sorted(kept)])
    _write(texts / "dev.csv", dev)
    steps = limit or _STEPS
    losses: dict[str, list[dict[str, float]]] = {arm: [] for arm in _ARMS}
    for seed in range(seeds):
        for arm in _ARMS:
            run = out / f"colm-texts-{arm.replace(' ', '-')}-{seed}-{steps}"
            chooses = "--batch-selection" in ARMS[arm]
            bench.run(
                run,
                *("--data", str(texts), "--model", str(model), *_OPTIONS, *ARMS[arm]),
                *("--steps", str(steps), "--evaluate-every", str(steps), "--seed", str(seed)),
                *(("--sources", "source") if chooses else ()),
            )
            losses[arm].append(_judged(run / "model", held))
    cells = [cells_of(arm, losses, _SCORES) for arm in _ARMS]
    return (
        f"{model.name}: {steps} steps, texts of at most {_LENGTH} tokens, {seeds} seeds, one "
        f"thread, AdamW at 1e-4; {_HELD} held-out texts of each source; means with the 95 % "
        f"interval of the paired difference to `random 8`.\n\n{bench.table(_HEAD, cells)}"
    )


def _reviews(data: Path) -> Iterator[_Row]:
    names = {"0": "bad", "1": "good"}
    for line in (data / _FILES[0]).read_text("utf-8").splitlines():
        text, _, label = line.rpartition("\t")
        yield text, names[label], "reviews"


def _problems(data: Path) -> Iterator[_Row]:
    for line in (data / _FILES[1]).read_text("utf-8").splitlines():
        question = json.loads(line)["question"]
        asked = question.lower()
        if ("how many" in asked) != ("how much" in asked):
            yield question, "how many" if "how many" in asked else "how much", "problems"


def _plays(data: Path) -> Iterator[_Row]:
    said: dict[str, list[_Row]] = {speaker: [] for speaker in _SPEAKERS}
    for speech in (data / _FILES[2]).read_text("utf-8").split("\n\n"):
        speaker, _, words = speech.partition(":\n")
        if speaker in said and len(words.split()) >= _LEAST_WORDS:
            said[speaker].append((" ".join(words.split()), speaker.title(), "plays"))
    for both in zip(*said.values(), strict=False):  # one plays in the first half, one in the last
        yield from both


def _write(path: Path, rows: Sequence[_Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "source"), *rows])


def _judged(folder: Path, held: Mapping[str, Sequence[_Row]]) -> dict[str, float]:
    """Return the mean loss of a trained model on the held-out texts of each source."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    network: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    numbers, found = network.config.label2id, {}
    for name, rows in held.items():
        parts = []
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            given = tokenizer(
                [text for text, *_ in some],
                padding=True,
                truncation=True,
                max_length=_LENGTH,
                return_tensors="pt",
            )
            labels = torch.tensor([numbers[label] for _, label, _ in some])
            with torch.no_grad():
                logits = network(**given).logits
            parts += torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
        found[name] = statistics.mean(parts)
    return found
