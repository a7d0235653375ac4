"""`edge-train bench gradnormlorp`: rows as lengths and directions, beside galore and LoRA.

At about the same bytes of optimizer state for the layers: gradnormlorp keeps three numbers a row
more than galore, so galore gets a vector more, and LoRA the rank that fills as many bytes. A
pretrained encoder learns classes of texts by each with every seed; then a small language model of
random weights learns a text by the first two. The learning rate of each way is searched first, of
three a factor of four apart, by the lowest held-out loss of a run whose seed is not measured. What
is finished is read and not run again.
"""

import statistics
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench import paired
from edge_train.bench.small_llama import write_folder
from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes
from edge_train.optim.low_rank import is_embedding
from edge_train.records import checkpoint
from edge_train.records.folder import RunFolder
from edge_train.units import format_bytes

_OWN, _OTHER, _ADAPTER, _SMALL = "gradnormlorp", "galore", "lora", "gradnormlorp8bit"
_ADAM_BYTES = 8  # of AdamW, a weight
_AIM = 0.85  # of them, to be saved
_STEPS, _TEXT_STEPS = 40, 60
_SEARCH_SEED = 100  # of the runs that choose a rate; no measured run has it
_LADDER = (0.25, 1.0, 4.0)  # times the rate in the middle
_MIDDLE = {_OWN: 8e-4, _OTHER: 8e-4, _ADAPTER: 4e-3}  # of rates that are tried
_TEXT_MIDDLE = {_OWN: 4e-3, _OTHER: 4e-3}
_LOW = ("--refresh-every", "20")
_WAYS: dict[str, tuple[str, ...]] = {
    _OWN: ("--method", _OWN, "--rank", "8", "--scale", "6.9", *_LOW),
    _OTHER: ("--method", _OTHER, "--rank", "9", "--scale", "6.5", *_LOW),
    _ADAPTER: ("--method", _ADAPTER, "--rank", "37"),
}
_ONCE: dict[str, tuple[str, ...]] = {  # with the first seed: its bytes, and that it learns, too
    _SMALL: ("--method", _SMALL, "--rank", "8", "--scale", "6.9", *_LOW),
}
_ENCODER = (
    *("--task", "classify", "--runtime", "torch", "--threads", "1"),
    *("--length", "32", "--samples", "16"),
)
_COUNTS = {"train": 10_000, "dev": 128, "test": 500}
_TEXT = (
    *("--task", "language-model", "--threads", "1", "--samples", "8", "--length", "32"),
    *("--refresh-every", "20", "--scale", "2"),
)
_TEXT_WAYS = {
    _OWN: ("--method", _OWN, "--rank", "32"),
    _OTHER: ("--method", _OTHER, "--rank", "33"),
}
_SIZES = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 128,
}
_TOKENS = 1024
_HEAD = ("way", "test accuracy, seeds in their order", "mean", f"{_OWN} minus it")
_STATE = ("rate", "state of layers", "of all", "under AdamW's", "step")


def main(
    out: Path,
    seeds: int,
    model: Path | None = None,
    data: Path | None = None,
    limit: int = _STEPS,
) -> str:
    """Train by every way with every seed; return two Markdown tables.

    Args:
      model: the folder of an encoder.
      data: a folder with sst2/train.tsv, dev.tsv, test.tsv and tinyshakespeare/input.txt.
      limit: steps of a run of the encoder.

    Raises:
      InputError: one is not named, or a file is missing.
    """
    names = [f"sst2/{name}.tsv" for name in _COUNTS] + ["tinyshakespeare/input.txt"]
    if model is None or data is None or not all((data / name).is_file() for name in names):
        raise InputError(
            f"bench gradnormlorp needs --model ENCODER and --data FOLDER with {', '.join(names)}."
        )
    return "\n\n".join((_encoder(out, seeds, model, data, limit), _language(out, seeds, data)))


def _encoder(out: Path, seeds: int, model: Path, data: Path, steps: int) -> str:
    texts = out / "gradnormlorp-texts"
    texts.mkdir(parents=True, exist_ok=True)
    for name, count in _COUNTS.items():
        with (data / "sst2" / f"{name}.tsv").open("rb") as file:
            write_bytes(texts / f"{name}.tsv", b"".join(islice(file, count)))
    others = ("--data", str(texts), "--model", str(model), *_ENCODER)
    found: dict[str, list[dict[str, Any]]] = {}
    rates = {
        way: _searched(out, f"encoder-{way}", (*others, *options), steps, _MIDDLE[way])
        for way, options in _WAYS.items()
    }
    rates |= dict.fromkeys(_ONCE, rates[_OWN])
    for seed in range(seeds):  # ways in turn, so that a sitting that ends early has all of them
        for way, options in (_WAYS | (_ONCE if seed == 0 else {})).items():
            report = _train(out, f"encoder-{way}", (*others, *options), steps, seed, rates[way])
            found.setdefault(way, []).append(report)
    scores = {way: [100 * r["metrics"]["accuracy"] for r in own] for way, own in found.items()}
    rows = []
    for way in (*_WAYS, *_ONCE):
        own = scores[way]
        rows.append(
            (
                way,
                ", ".join(f"{score:.1f}" for score in own),
                f"{statistics.mean(own):.1f} %",
                "-" if way == _OWN else paired.words(scores[_OWN][: len(own)], own),
                *_state_cells(found[way], found[_OWN][0]["trained"], rates[way]),
            )
        )
    saved = 1 - found[_SMALL][0]["state"] / (_ADAM_BYTES * found[_OWN][0]["trained"])
    return (
        f"{model.name}: {steps} steps of 16 texts of at most 32 tokens, {seeds} seeds, one thread; "
        f"accuracy on {found[_OWN][0]['metrics']['scored_examples']} texts, differences seed by "
        f"seed with their 95 % interval.\n\n{bench.table((*_HEAD, *_STATE), rows)}\n\n"
        f"Optimizer state of {_SMALL}: {100 * saved:.1f} % under AdamW's, {100 * _AIM:.0f} % were "
        f"aimed at ({'reached' if saved >= _AIM else '**missed**'})."
    )


def _language(out: Path, seeds: int, data: Path) -> str:
    text = out / "gradnormlorp-text"
    text.mkdir(parents=True, exist_ok=True)
    whole = (data / "tinyshakespeare" / "input.txt").read_bytes()
    write_bytes(text / "input.txt", whole[:200_000])
    folder = out / "gradnormlorp-model"
    if not (folder / "tokenizer.json").is_file():
        write_folder(folder, text / "input.txt", _TOKENS, **_SIZES)
    others = ("--data", str(text), "--model", str(folder), *_TEXT)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in _TEXT_WAYS}
    steps = _TEXT_STEPS
    rates = {
        way: _searched(out, f"language-{way}", (*others, *options), steps, _TEXT_MIDDLE[way])
        for way, options in _TEXT_WAYS.items()
    }
    for seed in range(seeds):
        for way, options in _TEXT_WAYS.items():
            run = _train(out, f"language-{way}", (*others, *options), steps, seed, rates[way])
            found[way].append(run)
    losses = {w: [r["metrics"]["held_out_loss"] for r in own] for w, own in found.items()}
    rows = [
        (
            way,
            ", ".join(f"{loss:.3f}" for loss in own),
            f"{statistics.mean(own):.3f}",
            "-" if way == _OWN else paired.words(losses[_OWN], own, 3),
            *_state_cells(found[way], found[_OWN][0]["trained"], rates[way]),
        )
        for way, own in losses.items()
    ]
    return (
        f"A Llama of {found[_OWN][0]['trained'] / 1e6:.1f} M random weights, {_TEXT_STEPS} "
        f"steps of 8 sequences of 32 tokens, ranks 32 and 33.\n\n"
        + bench.table((_HEAD[0], "held-out loss", *_HEAD[2:], *_STATE), rows)
    )


def _searched(out: Path, name: str, words: tuple[str, ...], steps: int, middle: float) -> float:
    """Return the rate of three whose run ends with the lowest held-out loss."""

    def ended(rate: float) -> float:
        report = _train(out, name, words, steps, _SEARCH_SEED, rate)
        return float(report["eval"]["last"])

    return min((step * middle for step in _LADDER), key=ended)


def _train(
    out: Path, name: str, words: tuple[str, ...], steps: int, seed: int, rate: float
) -> dict[str, Any]:
    """Return the report of a run, the bytes of its state (of layers, of all), what it trained."""
    run = out / f"gradnormlorp-{name}-{rate:g}-{steps}-seed{seed}"
    more = ("--steps", str(steps), "--evaluate-every", str(steps), "--seed", str(seed))
    report = bench.run(run, *words, *more, "--learning-rate", f"{rate:g}")
    [*_, newest] = sorted(RunFolder(run).checkpoints.glob("step-*.safetensors"))
    snapshot = checkpoint.load(newest)
    sizes = {
        block: sum(part.nbytes for part in parts.values())
        for block, parts in snapshot.state.items()
    }
    trained = sum(block.size for block in snapshot.parameters.values())
    layers = sum(size for block, size in sizes.items() if not is_embedding(block))
    return {**report, "state": sum(sizes.values()), "layers": layers, "trained": trained}


def _state_cells(own: Sequence[Mapping[str, Any]], whole: int, rate: float) -> tuple[str, ...]:
    """Return cells of a row: rate and state, beside AdamW's for so many weights."""
    first = own[0]
    under = 1 - first["state"] / (_ADAM_BYTES * whole)
    return (
        f"{rate:g}",
        format_bytes(first["layers"]),
        format_bytes(first["state"]),
        f"{100 * under:.1f} %",
        f"{statistics.median(r['seconds_per_step'] for r in own):.2f} s",
    )
