"""A head on sentences' features, on devices that each have other shares of the labels.

An encoder stays frozen while a head is trained, so its outputs are computed once: the mean of the
hidden values of a text's tokens. The head is two linear layers, of two units each.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.bench.fleet_learning import (
    DEVICES,
    SHARES,
    dirichlet_parts,
    run_alone,
    run_fleet,
)
from edge_train.recipe import Recipe
from edge_train.tasks import recipe_of
from edge_train.tasks.classify.texts import Example, read_examples

_EACH, _TEST = 100, 400  # texts of a device; of the score
_AT_ONCE, _LENGTH = 32, 32  # texts; tokens


def head(folder: Path, data: Path, model: Path, steps: int, seeds: int) -> str:
    """Return a table: devices with label shares from Dirichlet, against one machine.

    Args:
      data: folder with train.tsv and test.tsv, lines of a text, a tab and a label.
      model: folder of an encoder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    examples = read_examples(data / "train.tsv")
    labels = np.array([int(one.label) for one in examples])
    taken = dirichlet_parts(labels, np.random.default_rng(0), SHARES, _EACH)
    every = np.concatenate(taken)
    test = read_examples(data / "test.tsv")[:_TEST]
    inputs = _features(folder / "train.npy", model, [examples[int(n)] for n in every])
    rest: dict[str, Any] = {
        "test_inputs": _features(folder / "test.npy", model, test),
        "test_labels": np.array([int(one.label) for one in test]),
        "class_names": np.array(["0", "1"]),
    }
    ends = np.cumsum([0, *map(len, taken)])
    paths = []
    for number in range(DEVICES + 1):
        own = slice(ends[number], ends[number + 1]) if number < DEVICES else slice(None)
        paths.append(folder / f"data-{number}.npz")
        np.savez(paths[-1], train_inputs=inputs[own], train_labels=labels[every][own], **rest)
    of = partial(_recipe, inputs)
    rows = []
    for seed in range(seeds):
        fleet = run_fleet(folder / f"fleet-{seed}-{steps}", paths[:-1], steps, seed, of=of)
        alone = run_alone(folder / f"alone-{seed}-{steps}", paths[-1], steps, seed, of=of)
        both = [100 * one["metrics"]["test_accuracy"] for one in (fleet, alone)]
        rows.append((str(seed), *(f"{value:.1f}" for value in both), f"{both[0] - both[1]:+.1f}"))
    of_one = [int(labels[numbers].sum()) for numbers in taken]
    return (
        f"Head on SST-2, {DEVICES} devices of at most {_EACH} texts, label shares from "
        f"Dirichlet({SHARES:g}) (label 1: {', '.join(map(str, of_one))}), {steps} steps; the "
        "machine takes as many passes as one device.\n\n"
        + bench.table(("seed", "fleet, %", "one machine with all data, %", "difference"), rows)
    )


def _features(path: Path, model: Path, examples: Sequence[Example]) -> NDArray[np.float32]:
    """Return what an encoder makes of texts, a row each; computed once and kept in a file."""
    if path.is_file():
        found: NDArray[np.float32] = np.load(path)
        return found
    import torch
    from transformers import AutoModel, AutoTokenizer

    words = AutoTokenizer.from_pretrained(model)
    encoder = AutoModel.from_pretrained(model).eval()
    rows = []
    order = np.argsort([len(one.text) for one in examples])
    with torch.inference_mode():
        for start in range(0, len(examples), _AT_ONCE):
            texts = [examples[int(n)].text for n in order[start : start + _AT_ONCE]]
            batch = words(
                texts, padding=True, truncation=True, max_length=_LENGTH, return_tensors="pt"
            )
            hidden = encoder(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            rows.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    found = np.empty((len(examples), rows[0].shape[1]), np.float32)
    found[order] = np.concatenate(rows)
    np.save(path, found)
    return found


def _recipe(inputs: NDArray[np.float32], data: Path, steps: int, seed: int) -> Recipe:
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    values = {
        "task": "network",
        "network": "dense 2",
        "method": "zo",
        "continual": "none",
        "steps": steps,
        "evaluate_every": max(1, steps // 5),
        "seed": seed,
        "data": str(data),
        "standardization": " ".join(f"{value:.6g}" for value in (*mean, *deviation)),
    }
    return recipe_of(values, "")
