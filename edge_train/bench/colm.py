"""`edge-train bench colm`: batches of 8 that are chosen from 32, against 8 by chance and all 32.

A small Llama without weights learns a mixture of three sources, 70, 25 and 5 percent of it. Told
are losses on held-out text of the smallest source, of all three alike and by their shares, paired
by seeds, and how much of the gap between 8 by chance and 32 each selection closes. The second
table has the peak of steps of a wider model. A run that is finished is read and not run again.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.bench.small_llama import write_folder
from edge_train.errors import InputError
from edge_train.formats.language_folder import open_language_model
from edge_train.registry import load

_SOURCES = {"large": 280_000, "middle": 100_000, "small": 20_000}  # letters to train on
_HELD = 20_000  # letters of each that are held out
_ROW = 500  # letters of a document
_STEPS, _LENGTH, _TOKENS = 200, 48, 512
_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 176,
    "max_position_embeddings": 256,
}
_WIDE = {**_SIZES, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4}
_EIGHT = ("--batch-size", "8", "--candidates", "32", "--batch-selection")
ARMS: Mapping[str, tuple[str, ...]] = {
    "random 8": (*_EIGHT, "random"),
    "all 32": ("--batch-size", "32"),
    "colm": (*_EIGHT, "colm"),
    "colm-zo, 8 directions": (*_EIGHT, "colm-zo"),
    "colm-zo, 1 direction": (*_EIGHT, "colm-zo", "--selection-directions", "1"),
    "loss": (*_EIGHT, "loss"),
}
_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
_SCORES: Mapping[str, Mapping[str, int]] = {
    "smallest source": {"small": 1},
    "sources alike": dict.fromkeys(_SOURCES, 1),
    "as the mixture": _SOURCES,
}
_HEAD = ("batch", *(cell for name in _SCORES for cell in (f"loss, {name}", "gap closed")))
_HEAD_COST = ("batch", "peak planned", "peak measured", "s a step", "of it choosing")


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    limit: int | None = None,
) -> str:
    """Train every kind of batch with every seed; return Markdown tables.

    Args:
      data: a folder with `large.txt`, `middle.txt` and `small.txt`.
      model: the folder of an encoder, which learns classes of texts; see `colm_texts`.
      limit: steps.

    Raises:
      InputError: the texts are not there, or too short.
    """
    if model is not None and data is not None:
        return str(load("edge_train.bench.colm_texts:table_of")(out, seeds, model, data, limit))
    if data is None or not all((data / f"{name}.txt").is_file() for name in _SOURCES):
        raise InputError("bench colm needs --data FOLDER with large.txt, middle.txt and small.txt.")
    texts = {name: (data / f"{name}.txt").read_text("utf-8") for name in _SOURCES}
    for name, letters in _SOURCES.items():
        if len(texts[name]) < letters + _HELD:
            raise InputError(
                f"{data / name}.txt has {len(texts[name])} letters; {letters + _HELD} are needed."
            )
    limit = limit or _STEPS
    out.mkdir(parents=True, exist_ok=True)
    mixture = out / "colm-mixture.jsonl"
    if not mixture.is_file():
        mixture.write_text(_mixed(texts), "utf-8")
    for name, sizes in (("colm-start", _SIZES), ("colm-wide", _WIDE)):
        if not (out / name / "tokenizer.json").is_file():
            write_folder(out / name, mixture, _TOKENS, **sizes)
    losses: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        for arm in ARMS:
            run = out / f"colm-{arm.replace(' ', '-').replace(',', '')}-{seed}-{limit}"
            _run(run, out / "colm-start", mixture, arm, seed, limit, _LENGTH)
            losses[arm].append(_judged(run / "model", texts))
    rows = [cells_of(arm, losses, _SCORES) for arm in ARMS]
    costs = [_cost(out, mixture, arm) for arm in ARMS]
    return (
        f"{limit} steps, sequences of {_LENGTH} tokens, {seeds} seeds, one thread; means with the "
        f"95 % interval of the paired difference to `random 8`.\n\n{bench.table(_HEAD, rows)}\n\n"
        f"A Llama of width {_WIDE['hidden_size']} and {_WIDE['num_hidden_layers']} layers, "
        f"sequences of 256 tokens.\n\n{bench.table(_HEAD_COST, costs)}"
    )


def _mixed(texts: Mapping[str, str]) -> str:
    """Return rows of the sources, spread evenly over each other."""
    rows = []
    for name, letters in _SOURCES.items():
        pieces = [texts[name][at : at + _ROW] for at in range(0, letters, _ROW)]
        rows += [((n + 0.5) / len(pieces), name, piece) for n, piece in enumerate(pieces)]
    return "".join(json.dumps({"text": t, "source": s}) + "\n" for _, s, t in sorted(rows))


def _run(
    run: Path, model: Path, mixture: Path, arm: str, seed: int, steps: int, length: int
) -> dict[str, Any]:
    chooses = "--batch-selection" in ARMS[arm]
    return bench.run(
        run,
        *("--task", "language-model", "--threads", "1", "--data", str(mixture)),
        *("--model", str(model), "--steps", str(steps), "--length", str(length)),
        *("--seed", str(seed), "--evaluate-every", str(steps), "--method", "adamw"),
        *("--lr", "2e-3"),
        *ARMS[arm],
        *(("--sources", "source") if chooses else ()),
    )


def _judged(folder: Path, texts: Mapping[str, str]) -> dict[str, float]:
    """Return the loss of a trained model on held-out text of each source."""
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    model = open_language_model(folder, str(folder))
    runtime = TorchLanguageModel.open(model, quant="none", threads=1, seed=0)
    tokenizer, found = model.tokenizer(), {}
    for name, letters in _SOURCES.items():
        ids = tokenizer.encode(texts[name][letters : letters + _HELD], add_special_tokens=False).ids
        count = (len(ids) - 1) // _LENGTH
        starts = np.arange(count)[:, None] * _LENGTH + np.arange(_LENGTH + 1)
        batch = {"ids": np.array(ids, np.int64)[starts]}
        found[name] = float(runtime.forward(batch, [runtime.parameters])[0].mean(dtype=np.float64))
    runtime.close()
    return found


def cells_of(
    arm: str,
    losses: Mapping[str, Sequence[Mapping[str, float]]],
    scores: Mapping[str, Mapping[str, int]],
) -> tuple[str, ...]:
    """Return the cells of a way to choose: its loss, and what it closes, by each of the scores."""
    cells = [arm]
    for shares in scores.values():
        values, chance, all_of = (
            [weighted(one, shares) for one in losses[name]] for name in (arm, "random 8", "all 32")
        )
        cells += [loss_words(values, chance), closed(values, chance, all_of)]
    return tuple(cells)


def weighted(losses: Mapping[str, float], shares: Mapping[str, int]) -> float:
    """Return the mean loss of sources by their shares."""
    return sum(losses[s] * share for s, share in shares.items()) / sum(shares.values())


def loss_words(values: Sequence[float], chance: Sequence[float]) -> str:
    """Return a mean loss, and how far it is from that of chance."""
    mean = f"{statistics.mean(values):.3f}"
    if values == chance or len(values) < 2:
        return mean
    gaps = [own - other for own, other in zip(values, chance, strict=True)]
    return f"{mean} ({statistics.mean(gaps):+.3f} +- {_interval(gaps):.3f})"


def closed(values: Sequence[float], chance: Sequence[float], all_of: Sequence[float]) -> str:
    """Return the share of the gap that is closed, where the gap is twice its standard error."""
    if values in (chance, all_of):
        return "-"
    gaps = [other - own for own, other in zip(all_of, chance, strict=True)]
    gap = statistics.mean(gaps)
    if len(gaps) > 1 and gap < 2 * statistics.stdev(gaps) / math.sqrt(len(gaps)):
        return "no gap"
    gained = statistics.mean(chance) - statistics.mean(values)
    return f"{100 * gained / gap:.0f} %"


def _interval(gaps: Sequence[float]) -> float:
    """Return half of the 95 % interval of a mean."""
    times = _STUDENT.get(len(gaps), 1.96)
    return times * statistics.stdev(gaps) / math.sqrt(len(gaps))


def _cost(out: Path, mixture: Path, arm: str) -> tuple[str, ...]:
    run = out / f"colm-cost-{arm.replace(' ', '-').replace(',', '')}"
    report = _run(run, out / "colm-wide", mixture, arm, 0, 4, 256)
    choosing = report["selection_seconds"]
    share = "-" if choosing is None else f"{choosing / report['steps']:.2f} s"
    peaks = [report[name] for name in ("plan_peak_bytes", "training_peak_bytes")]
    planned, measured = ("-" if one is None else f"{one / 1e6:.0f} MB" for one in peaks)
    return arm, planned, measured, f"{report['seconds_per_step']:.2f}", share
