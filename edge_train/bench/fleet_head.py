"""The head of a text classifier on devices that each have other shares of the labels."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edge_train import bench
from edge_train.bench.fleet_learning import (
    DEVICES,
    SHARES,
    dirichlet_parts,
    run_alone,
    run_fleet,
)
from edge_train.fleet.grid import Silent
from edge_train.recipe import Recipe
from edge_train.records.folder import RunFolder
from edge_train.run import session
from edge_train.tasks import recipe_of
from edge_train.tasks.classify.texts import Example, read_examples

_EACH, _TEST, _DEV = 400, 872, 128  # texts of a device; of the scores; of evaluations
_SAMPLES, _QUERIES, _RATE = 16, 32, 3e-2


def head(folder: Path, data: Path, model: Path, steps: int, seeds: int) -> str:
    """Return a table: devices with label shares from Dirichlet, against one machine.

    Args:
      data: folder with train.tsv, dev.tsv and test.tsv, lines of a text, a tab and a label.
      model: folder of an encoder.
    """
    parts = {part: read_examples(data / f"{part}.tsv") for part in ("train", "dev", "test")}
    labels = np.array([str(one.label) for one in parts["train"]])
    taken = dirichlet_parts(labels, np.random.default_rng(0), SHARES, _EACH)
    rest = {"dev": parts["dev"][:_DEV], "test": parts["test"][:_TEST]}
    paths = [folder / f"data-{number}" for number in range(DEVICES + 1)]
    for path, numbers in zip(paths, [*taken, np.concatenate(taken)], strict=True):
        _write(path, {"train": [parts["train"][int(n)] for n in numbers], **rest})
    of = partial(_recipe, _with_head(folder, paths[-1], model))
    rows, gaps = [], []
    for seed in range(seeds):
        fleet = run_fleet(folder / f"fleet-{seed}-{steps}", paths[:-1], steps, seed, of=of)
        alone = run_alone(folder / f"alone-{seed}-{steps}", paths[-1], steps, seed, of=of)
        both = [100 * one["metrics"]["test_accuracy"] for one in (fleet, alone)]
        gaps.append(both[0] - both[1])
        rows.append((str(seed), *(f"{value:.1f}" for value in both), f"{gaps[-1]:+.1f}"))
    return (
        f"Head on SST-2, {DEVICES} devices of {_EACH} texts, label shares from "
        f"Dirichlet({SHARES:g}), {steps} steps of {_QUERIES} slopes and {_SAMPLES} texts; the "
        f"machine takes as many passes as one device.\n\n"
        + bench.table(("seed", "fleet, %", "one machine with all data, %", "difference"), rows)
    )


def _write(folder: Path, parts: dict[str, Sequence[Example]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, examples in parts.items():
        lines = [f"{one.text}\t{one.label}\n" for one in examples]
        (folder / f"{part}.tsv").write_text("".join(lines))


def _with_head(folder: Path, data: Path, model: Path) -> Path:
    """Return the encoder with a head that hardly learned, so that all devices begin alike."""
    out = folder / "begun"
    if not RunFolder(out).report.is_file():
        values = {
            **_values(data, model, 1, 0),
            "method": "adamw",
            "learning_rate": 1e-6,
            "new_head": True,
            "out": str(out),
        }
        for name in ("queries", "epsilon"):
            del values[name]
        session.run(recipe_of(values, ""), Silent())
    return out / "model"


def _values(data: Path, model: Path, steps: int, seed: int) -> dict[str, object]:
    return {
        "task": "classify",
        "runtime": "torch",
        "threads": 1,
        "trainable": "head",
        "method": "zo",
        "queries": _QUERIES,
        "epsilon": 0.1,
        "learning_rate": _RATE,
        "length": 32,
        "samples": _SAMPLES,
        "steps": steps,
        "evaluate_every": steps,
        "evaluation_samples": _DEV,
        "seed": seed,
        "data": str(data),
        "model": str(model),
    }


def _recipe(model: Path, data: Path, steps: int, seed: int) -> Recipe:
    return recipe_of(_values(data, model, steps, seed), "")
