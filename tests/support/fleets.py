"""Fleets of tiny devices for tests: a few samples, a network of four units, no Flower."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from edge_train.fleet.averaging import Average
from edge_train.fleet.grid import LocalDevice, LocalGrid
from edge_train.fleet.server import Server
from edge_train.fleet.turns import train
from edge_train.recipe import Recipe
from edge_train.records import journal
from edge_train.tasks import recipe_of

SCALES = "0.0 " * 6 + "1.0 " * 6


def write_data(path: Path, classes: tuple[int, ...], seed: int = 0) -> Path:
    """Write 60 samples of some of three classes, which can be told apart."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, 60)
    inputs = draw.normal(size=(60, 6)).astype(np.float32)
    inputs[np.arange(60), labels] += 2
    np.savez(
        path,
        train_inputs=inputs,
        train_labels=labels,
        test_inputs=inputs[:20],
        test_labels=labels[:20],
        class_names=np.array(["a", "b", "c"]),
    )
    return path


def recipe(data: Path, **changes: Any) -> Recipe:
    """Return the recipe of a device."""
    values = {
        "task": "network",
        "network": "mlp 4",
        "method": "zo",
        "steps": 12,
        "evaluate_every": 5,
        "samples": 10,
        "standardization": SCALES.strip(),
        "learning_rate": 0.05,
        "epsilon": 0.01,
        "continual": "none",
        "data": str(data),
    }
    return recipe_of({**values, **changes}, "")


def server(folder: Path, quorum: int, said: list[str], rule: Any = "mean") -> Server:
    """Return a server that begins or goes on in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Server(folder, Average(rule, 0.34), quorum, said.append)


def finish(
    one: Server, grid: LocalGrid, each: Callable[[], None] = lambda: None, wait: float = 20
) -> None:
    """Take all rounds; then let every device end."""
    train(one, grid, wait, each)
    one.book.close()
    for device in grid.devices.values():
        device.thread.join(wait)
        assert not device.thread.is_alive(), "a device did not end"


def bits(run: Path) -> str:
    """Return a hash of the last parameters and moments of a run, and of what it hands out."""
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: path.name)
    digest = hashlib.sha256((run / "network.safetensors").read_bytes())
    for name, values in sorted(load_file(newest).items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def steps(run: Path) -> list[tuple[Any, ...]]:
    """Return the steps of a journal, without clocks and memory."""
    records, _ = journal.read(run / "journal.jsonl")
    names = ("step", "loss", "scalars", "eval", "skipped")
    return [tuple(json.dumps(r[n]) for n in names) for r in records if r["kind"] == "step"]


def device(folder: Path, data: Path, **changes: Any) -> LocalDevice:
    """Return a device that begins, or goes on, in a folder."""
    return LocalDevice(recipe(data, **changes), folder)
