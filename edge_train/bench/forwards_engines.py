"""`edge-train bench forwards-engines`: time and memory to the exact gradient's likeness, by engine.

Exact gradients on torch in float32 and in bfloat16, and forward passes alone on torch and on the
`int8-fast` artifact of the same model; each curve is trained in a fresh process.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.bench.engine_quality import exported
from edge_train.bench.forwards import (
    EXACT,
    FORWARDS,
    SHARE,
    WAYS,
    Found,
    Trials,
    count,
    curves_table,
    forwards_of,
    gained,
    likeness_wanted,
    seconds_of,
)
from edge_train.bench.forwards_curves import interval
from edge_train.bench.item_likeness import Items
from edge_train.bench.items import choose
from edge_train.bench.likeness import CLASSES, gallery_of
from edge_train.formats.embedded import EMBEDDED
from edge_train.memory import processor

FLOAT, BFLOAT = "exact gradient, float32", "exact gradient, bfloat16"
ZO, INT8_FAST = "zo, float32", "zo, int8-fast on ONNX Runtime"
_EXACT_WAYS = (FLOAT, BFLOAT)
_TIME, _MEMORY = 1.0, 0.5  # wanted of int8-fast, as shares of the faster exact gradient's
_PRODUCTS = {
    True: "has products of bfloat16",
    False: "has no products of bfloat16, so torch makes them of others",
    None: "does not tell whether it has products of bfloat16",
}


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    samples: int = len(CLASSES),
) -> str:
    """Measure every way, item and seed; return Markdown tables.

    Args:
      out: where the artifact, tokens and scores are kept; curves of the exact gradient that
        `bench forwards` kept there are read.
      data: the folder of `fashion_mnist.npz`.
      model: a folder of `demos/tiny_sd/pretrain.py`, or the name of the embedded model, which is
        the default.
      samples: how many of the items, in the order of `CLASSES`.

    Raises:
      InputError: a folder is missing.
      TrainingStopped: the export or a curve's process failed; what is done stays.
    """
    gallery, labels = gallery_of(out, data, None)
    name, trained = model.name if model else EMBEDDED, str(model or EMBEDDED)
    items = choose(labels, CLASSES[:samples])
    trials = Trials(out, Items(gallery, items), name, trained, composed=False)
    ways = _ways(exported(out / f"{name}-int8-fast", "int8-fast", trained))
    found: Found = {}
    for item in items:
        for seed in range(seeds):
            for way, options in ways.items():
                found[way, item, seed] = trials.measured(way, options, item, seed, FORWARDS)
    space = gallery.spaces[0].name
    bfloat16 = _PRODUCTS[processor.multiplies_bfloat16()]
    return "\n\n".join(
        (
            f"{name}: {len(items)} items x {seeds} seeds, one thread. Exact gradients recompute "
            f"activations layer by layer, on torch; this processor {bfloat16}. Seconds count from "
            "the first step, without loading and photos, which peaks include.",
            f"Space `{space}`: to {100 * SHARE:.0f} % of the exact gain.",
            table(found, list(items), seeds, space),
            verdict(found, list(items), seeds, space),
            *(curves_table(found, way, [space]) for way in ways),
        )
    )


def _ways(artifact: Path) -> Mapping[str, dict[str, Any]]:
    """Return the options of each way; the first is that of `forwards`, and what the share is of."""
    on_torch = {"dtype": "float32", "device": "cpu"}
    return {
        EXACT: WAYS[EXACT],
        FLOAT: {"method": "backprop", **on_torch},
        BFLOAT: {"method": "backprop", **on_torch, "dtype": "bfloat16"},
        ZO: {"method": "zo", **on_torch},
        INT8_FAST: {"method": "zo", "model": str(artifact), "device": "cpu"},
    }


def table(found: Found, items: list[str], seeds: int, space: str) -> str:
    """Return what each way took to the share of the exact gain, and where it ended."""
    rows = []
    for way in dict.fromkeys(way for way, _, _ in found):
        own = [found[way, item, seed] for item in items for seed in range(seeds)]
        reached = forwards_of(found, way, items, seeds, space)
        most = max(measured.marks[-1].forwards for measured in own)
        middle, low, high = (count(value, most) for value in interval(reached))
        taken = interval(seconds_of(found, way, items, seeds, space))
        rows.append(
            [
                way,
                f"{middle} ({low} to {high})",
                f"{sum(np.isinf(reached))} of {len(reached)}",
                "{} ({} to {})".format(*map(_said, taken)),
                f"{_bytes(found, way, items, seeds, space) / 1e6:.0f}",
                gained(found, way, items, seeds, space),
            ]
        )
    head = ["way", "forwards: median (90 %)", "never", "processor seconds: median (90 %)"]
    return bench.table([*head, "peak MB until then", "gain at the end (range)"], rows)


def _said(seconds: float) -> str:
    return f"{seconds:.2f}" if np.isfinite(seconds) else "never"


def _bytes(found: Found, way: str, items: list[str], seeds: int, space: str) -> int:
    """Return the most that a curve of a way held until it was there."""
    return max(
        found[way, item, seed].bytes_to(space, likeness_wanted(found, item, seeds, space))
        for item in items
        for seed in range(seeds)
    )


def verdict(found: Found, items: list[str], seeds: int, space: str) -> str:
    """Return how int8-fast compares with the faster exact gradient, in median time and memory."""
    taken = {way: seconds_of(found, way, items, seeds, space) for way in (*_EXACT_WAYS, INT8_FAST)}
    times = {way: interval(seconds)[0] for way, seconds in taken.items()}
    faster = min(_EXACT_WAYS, key=lambda way: times[way])
    if not np.isfinite([times[faster], times[INT8_FAST]]).all():
        missing = faster if np.isinf(times[faster]) else INT8_FAST
        return f"The median run of `{missing}` is never there: no ratio of times."
    held = [_bytes(found, way, items, seeds, space) for way in (INT8_FAST, faster)]
    time, memory = times[INT8_FAST] / times[faster], held[0] / held[1]
    lost, other = (sum(np.isinf(taken[way])) for way in (INT8_FAST, faster))
    return (
        f"`{INT8_FAST}` against `{faster}`, the faster exact gradient: {time:.2f} of its processor "
        f"seconds (wanted: {_TIME:g}, {_met(time <= _TIME)}) and {memory:.2f} of its peak (wanted: "
        f"{_MEMORY:g}, {_met(memory <= _MEMORY)}). Never there: {lost} and {other} of "
        f"{len(items) * seeds} runs."
    )


def _met(wanted: bool) -> str:
    return "met" if wanted else "**missed**"
