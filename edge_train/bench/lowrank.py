"""`edge-train bench lowrank`: update rules of small state against AdamW, on a small Llama.

The same random weights, the same sequences in the same order, each seen once, exact gradients: what
differs is the rule that makes updates of them, its rate, and for the last lines the weights. Rates
are chosen first, each with shorter runs of another seed, that of AdamW at last by whole ones of all
seeds: what others are compared with must not lose by its rate. Then every rule runs once, the best
three and AdamW with all seeds, the best two with INT8 weights. What a finished run showed is a line
of `lowrank-runs.jsonl` in the folder and the run is not run again, one that was stopped goes on:
the whole takes hours and can be done in sittings, on several machines. Seconds are taken anew.
"""

import json
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train import bench
from edge_train.bench import tuning
from edge_train.bench.rule_cost import REFRESH, ROUNDS, step_seconds
from edge_train.bench.small_llama import write_folder
from edge_train.errors import InputError
from edge_train.optim.low_rank import is_embedding
from edge_train.records import checkpoint, journal
from edge_train.records.folder import RunFolder
from edge_train.units import format_bytes

_WIDTH, _LAYERS, _TOKENS, _RANK = 384, 6, 2048, 64
_SEQUENCES = (8, 128)  # of a step, and tokens in one
_STEPS = 1465  # 1.5 M tokens
_DTYPE = "bfloat16"  # of products with weights, which are in float32 or INT8
_CHOICE_SEED, _CHOICE_SHARE = 1000, 0.2  # of the steps, to choose a rate
_SIZES = {
    "hidden_size": _WIDTH,
    "intermediate_size": 1024,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 512,
}
_OPTIONS = (
    *("--task", "language-model", "--threads", "1", "--samples", str(_SEQUENCES[0])),
    *("--length", str(_SEQUENCES[1]), "--evaluate-every", "100", "--dtype", _DTYPE),
)
_LOW = ("--rank", str(_RANK), "--refresh-every", "50")
_FULL = "adamw"
# Only rates are searched for. Scales make an update about as long as Adam's would be, since the
# output layer and the table of tokens get Adam's at the same rate.
_RULES: dict[str, tuple[str, ...]] = {
    _FULL: ("--method", "adamw"),
    "scale-sgd": ("--method", "scale-sgd"),
    "racs": ("--method", "racs"),
    "sumo": ("--method", "sumo", *_LOW, "--scale", "1"),
    "fira": ("--method", "fira", *_LOW, "--scale", "1"),
    "q-galore": ("--method", "q-galore", *_LOW, "--scale", "4"),
    "apollo": ("--method", "apollo", *_LOW, "--scale", str(_WIDTH / _RANK)),
}
# What a step costs is measured of these, too.
_OTHERS: dict[str, tuple[str, ...]] = {
    "adamw8bit": ("--method", "adamw8bit"),
    "galore": ("--method", "galore", *_LOW, "--scale", "4"),
    "dct-adamw": ("--method", "dct-adamw", "--rank", str(_RANK), "--scale", "1"),
    "apollo-mini": ("--method", "apollo-mini", "--scale", str(_WIDTH)),
    "frugal": ("--method", "frugal", *_LOW, "--scale", "1"),
}
_INT8 = ("--quant", "int8")
_CLOSE = 1.02  # of two losses that one seed each does not tell apart
_FIRST_RATE = {_FULL: 2e-3, "scale-sgd": 1e-3, "racs": 1e-3}
_USUAL_RATE = 2e-3  # of the others, to begin with
_KNOWN = "lowrank-runs.jsonl"  # a finished run a line
_BEST, _IN_INT8 = 3, 2  # rules that run with all seeds, and with INT8 weights
_HEAD = (
    *("method", "rate", "seeds", "state of layers", "of head and tokens", "held-out loss (range)"),
    *("against adamw (range)", "perplexity", "bits a projector value"),
)
_COST_HEAD = ("method", "median step", "against adamw", "worst / median")


def main(out: Path, seeds: int, data: Path | None = None, limit: int = _STEPS) -> str:
    """Choose rates, train in fresh processes; return two Markdown tables.

    Args:
      out: where finished runs are listed; a copy of another list there is gone on with.
      seeds: of AdamW and the best rules.
      data: a text, long enough that no token is seen twice.
      limit: steps of a run.

    Raises:
      InputError: no text was named.
    """
    if data is None or not data.is_file():
        raise InputError("bench lowrank needs a text: --data FILE.")
    model = out / "small-llama"
    if not (model / "tokenizer.json").is_file():
        write_folder(model, data, _TOKENS, **_SIZES)
    source = ("--data", str(data), "--model", str(model))
    choice = max(round(_CHOICE_SHARE * limit), 1)
    rates = {name: _rates(out, name, source, choice) for name in _RULES}
    rates[_FULL] = _by_whole_runs(out, source, rates[_FULL], limit, seeds)
    best_rate = {name: tuning.best(found) for name, found in rates.items()}
    reports = {
        name: [_train(out, name, words, source, best_rate[name], limit, 0)]
        for name, words in _RULES.items()
    }
    ranked = sorted(
        (name for name in _RULES if name != _FULL), key=lambda name: _loss(reports[name][0])
    )
    for seed in range(1, seeds):  # in turn, so that a sitting that ends early has all of them
        for name in (_FULL, *ranked[:_BEST]):
            rate = best_rate[name]
            reports[name].append(_train(out, name, _RULES[name], source, rate, limit, seed))
    for name in ranked[:_IN_INT8]:
        words, rate = (*_RULES[name], *_INT8), best_rate[name]
        reports[f"{name} int8"] = [_train(out, f"{name} int8", words, source, rate, limit, 0)]
    rows = [
        _row(name, own, reports[_FULL], rates[name.removesuffix(" int8")])
        for name, own in reports.items()
    ]
    sequences, length = _SEQUENCES
    return "\n\n".join(
        [
            f"A Llama of {reports[_FULL][0]['parameters'] / 1e6:.1f} M random weights, rank "
            f"{_RANK}, {limit} steps of {sequences} sequences of {length} tokens "
            f"({limit * sequences * length / 1e6:.2f} M tokens of {data.name}, each seen once), "
            f"one thread, products of {_DTYPE}. Rates were chosen by the held-out loss after "
            f"{choice} steps with another seed, AdamW's by whole runs of all seeds, or of one "
            f"where that ends {100 * (_CLOSE - 1):.0f} % above another rate's; INT8 weights share "
            f"them. The table of {_TOKENS} tokens and the output layer have Adam's moments in "
            "float32, of q-galore in 8 bits; of scale-sgd the output layer has a momentum in 8 "
            "bits and the table nothing.",
            bench.table(_HEAD, rows),
            _costs(model, data, [f"{name} int8" for name in ranked[:_IN_INT8]]),
        ]
    )


def _rates(out: Path, name: str, source: tuple[str, ...], steps: int) -> dict[float, float]:
    def loss(rate: float) -> float:
        return _loss(_train(out, name, _RULES[name], source, rate, steps, _CHOICE_SEED))

    return tuning.losses_by_rate(loss, _FIRST_RATE.get(name, _USUAL_RATE))


def _by_whole_runs(
    out: Path, source: tuple[str, ...], found: Mapping[float, float], limit: int, seeds: int
) -> dict[float, float]:
    """Return AdamW's rates with their losses after whole runs, until both neighbors are worse.

    It begins with the lower one of the two best of shorter runs: longer ones want lower rates. A
    rate whose first seed ends close to the best first one runs with all of them.
    """
    firsts: dict[float, float] = {}

    def trained(rate: float, seed: int) -> float:
        return _loss(_train(out, _FULL, _RULES[_FULL], source, rate, limit, seed))

    def loss(rate: float) -> float:
        firsts[rate] = trained(rate, 0)
        if firsts[rate] > _CLOSE * min(firsts.values()):
            return firsts[rate]
        return statistics.mean(trained(rate, seed) for seed in range(seeds))

    return tuning.losses_by_rate(loss, min(sorted(found, key=lambda one: found[one])[:2]))


def _loss(report: Mapping[str, Any]) -> float:
    return float(report["loss"])


def _train(
    out: Path,
    name: str,
    words: tuple[str, ...],
    source: tuple[str, ...],
    rate: float,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    run = out / f"lowrank-{name.replace(' ', '-')}-{steps}-rate{rate:g}-seed{seed}"
    if run.name not in (known := _known(out)):
        others = (*source, *_OPTIONS, "--seed", str(seed), "--steps", str(steps))
        report = bench.run(run, *others, "--learning_rate", str(rate), *words)
        known[run.name] = {"loss": report["metrics"]["held_out_loss"], **_measured(run)}
        with (out / _KNOWN).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run.name, **known[run.name]}) + "\n")
        shutil.rmtree(run, ignore_errors=True)
    return known[run.name]


def _known(out: Path) -> dict[str, dict[str, Any]]:
    """Return what finished runs showed, by their names."""
    file = out / _KNOWN
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    return {line.pop("run"): line for line in map(json.loads, lines)}


def _row(
    name: str,
    own: list[dict[str, Any]],
    exact: list[dict[str, Any]],
    rates: dict[float, float],
) -> list[str]:
    losses = [_loss(report) for report in own]
    aims = [_loss(report) for report in exact[: len(own)]]
    above = [100 * (loss / aim - 1) for loss, aim in zip(losses, aims, strict=True)]
    share = 100 * own[0]["layers"] / exact[0]["layers"]
    bits = own[0]["bits"]
    return [
        name,
        tuning.words(rates),
        str(len(own)),
        f"{format_bytes(own[0]['layers'])} ({share:.2f} %)",
        format_bytes(own[0]["ends"]),
        _ranged(losses, "{:.3f}"),
        _ranged(above, "{:+.1f} %"),
        f"{math.exp(statistics.mean(losses)):.1f}",
        f"{bits:.2f}" if bits else "-",
    ]


def _ranged(values: Sequence[float], form: str) -> str:
    """Return the mean, and the range where there are several."""
    mean = form.format(statistics.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({form.format(min(values))} to {form.format(max(values))})"


def _costs(model: Path, data: Path, in_int8: Sequence[str]) -> str:
    """Return what a step of every method takes, measured now."""
    runs = {**_RULES, **_OTHERS}
    runs |= {name: (*_RULES[name.removesuffix(" int8")], *_INT8) for name in in_int8}
    seconds: Mapping[str, Sequence[float]] = step_seconds(model, data, _SEQUENCES, runs, _DTYPE)
    exact = statistics.median(seconds[_FULL])
    rows = []
    for name, own in seconds.items():
        median = statistics.median(own)
        cells = (f"{median:.2f} s", f"{median / exact:.2f}", f"{max(own) / median:.2f}")
        rows.append((name, *cells))
    return (
        f"Processor seconds of {ROUNDS} steps in turn in one process, after a first one; bases "
        f"are found every {REFRESH} of them.\n\n{bench.table(_COST_HEAD, rows)}"
    )


def _measured(run: Path) -> dict[str, float]:
    """Return parameters, bytes of state of layers and of the rest, bits a packed basis value."""
    [*_, newest] = sorted(RunFolder(run).checkpoints.glob("step-*.safetensors"))
    bytes_of = {"layers": 0, "ends": 0, "packed": 0}
    values = 0
    for block, parts in checkpoint.load(newest).state.items():
        place = "ends" if is_embedding(block) or block.startswith("lm_head") else "layers"
        for part, value in parts.items():
            kind = part.rpartition(".basis.")[2] if ".basis." in part else ""
            bytes_of[place] += value.nbytes
            bytes_of["packed"] += value.nbytes if kind in ("codes", "low", "step") else 0
            values += 2 * value.size if kind == "codes" else 0
    records, _ = journal.read(RunFolder(run).journal)
    return {
        "parameters": records[0]["facts"]["parameters"],
        **bytes_of,
        "bits": 8 * bytes_of["packed"] / values if values else 0.0,
    }
