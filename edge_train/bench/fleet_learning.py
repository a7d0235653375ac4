"""What a fleet learns of data that no device has all of, and beside devices that lie."""

import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.errors import TrainingStopped
from edge_train.fleet.averaging import Average, Rule
from edge_train.fleet.grid import LocalDevice, LocalGrid, Silent
from edge_train.fleet.server import Server
from edge_train.fleet.turns import train
from edge_train.fleet.wire import MEASURED, read_answer
from edge_train.formats import network_file
from edge_train.losses import cross_entropy
from edge_train.recipe import Recipe
from edge_train.records import journal
from edge_train.records.folder import RunFolder
from edge_train.run import session
from edge_train.runtimes.numpy.network import NumpyNetwork
from edge_train.tasks import recipe_of

DEVICES = 10
_EACH = 1500  # training samples of a device
_TEST = 2000
_SECONDS = 600.0  # for the answers of a round: the machine may be busy
SHARES = 0.1  # of a Dirichlet draw: few labels make up most of a device
_LIARS = 2
_FEW = 100  # steps
_LOCAL = 10  # steps between two exchanges of weights
_GARBAGE = 1e3  # standard deviation of what they send
Change = Callable[[int, bytes], list[bytes]]


def write_devices(folder: Path, data: Path, parts: Sequence[NDArray[Any]]) -> list[Path]:
    """Write the data of each device, and of all of them together as the last file."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"]
        rest = {
            "test_images": arrays["test_images"][:_TEST],
            "test_labels": arrays["test_labels"][:_TEST],
            "class_names": np.array([str(n) for n in range(10)]),
        }
    paths = []
    for number, taken in enumerate([*parts, np.concatenate(parts)]):
        paths.append(folder / f"data-{number}.npz")
        np.savez(paths[-1], train_images=images[taken], train_labels=labels[taken], **rest)
    return paths


def recipe(data: Path, steps: int, seed: int, more: Mapping[str, Any] = {}) -> Recipe:
    """Return the recipe of a device."""
    values = {
        "task": "network",
        "network": "mlp 30",
        "method": "zo",
        "continual": "none",
        "steps": steps,
        "evaluate_every": max(1, steps // 5),
        "standardization": "72.94 90.02",
        "seed": seed,
        "data": str(data),
    }
    return recipe_of({**values, **more}, "")


def run_fleet(
    folder: Path,
    datas: Sequence[Path],
    steps: int,
    seed: int,
    rule: Rule = "mean",
    change: Change = lambda node, content: [content],
    *,
    more: Mapping[str, Any] = {},
    exchange: str = "slopes",
    of: Callable[[Path, int, int], Recipe] | None = None,
) -> Mapping[str, Any]:
    """Train a fleet in this process; return the report of its first device.

    A fleet that is finished is read and not run again.
    """
    report = RunFolder(folder / "device-0").report
    if not report.is_file() or json.loads(report.read_text())["status"] != "done":
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "server").mkdir(parents=True)
        average = Average(rule, 0.2)
        server = Server(
            folder / "server", average, len(datas), lambda text: None, exchange=exchange
        )
        devices = {}
        for number, path in enumerate(datas):
            made = of(path, steps, seed) if of else recipe(path, steps, seed, more)
            devices[number] = LocalDevice(made, folder / f"device-{number}", exchange=exchange)
            while not devices[number].calls.listening.wait(1):  # one loads after the other
                if not devices[number].thread.is_alive():
                    raise TrainingStopped(f"device {number}: {devices[number].error}")
        train(server, LocalGrid(devices, change), _SECONDS, lambda: time.sleep(0.05))
        server.book.close()
        for device in devices.values():
            device.thread.join()
    found: Mapping[str, Any] = json.loads(report.read_text())
    return found


def run_alone(
    folder: Path,
    data: Path,
    steps: int,
    seed: int,
    more: Mapping[str, Any] = {},
    of: Callable[[Path, int, int], Recipe] | None = None,
) -> Mapping[str, Any]:
    """Train one machine with all data, as many passes as a device takes; return its report."""
    report = RunFolder(folder).report
    if not report.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        made = of(data, steps, seed) if of else recipe(data, steps, seed, more)
        session.run(replace(made, out=str(folder)), Silent())
    found: Mapping[str, Any] = json.loads(report.read_text())
    return found


def one_class_each(folder: Path, data: Path, steps: int, seeds: int) -> str:
    """Return a table: devices that hold a class each, against one machine that holds all."""
    with np.load(data) as arrays:
        labels = arrays["train_labels"]
    parts = [np.flatnonzero(labels == number)[:_EACH] for number in range(DEVICES)]
    text = f"{DEVICES} devices with one class of Fashion-MNIST each"
    return _compared(folder, write_devices(folder, data, parts), steps, seeds, text)


def dirichlet(folder: Path, data: Path, steps: int, seeds: int) -> str:
    """Return a table: devices whose labels are of a Dirichlet draw, against one machine."""
    with np.load(data) as arrays:
        labels = arrays["train_labels"]
    parts = dirichlet_parts(labels, np.random.default_rng(0), SHARES)
    text = f"{DEVICES} devices of Fashion-MNIST, label shares from Dirichlet({SHARES:g})"
    return _compared(folder, write_devices(folder, data, parts), steps, seeds, text)


def dirichlet_parts(
    labels: NDArray[Any], draw: np.random.Generator, concentration: float, each: int = _EACH
) -> list[NDArray[np.int64]]:
    """Return samples of each device, whose label shares are of a Dirichlet draw."""
    classes = np.unique(labels)
    by_class = [np.flatnonzero(labels == one).tolist() for one in classes]
    parts = []
    for _ in range(DEVICES):
        counts = draw.multinomial(each, draw.dirichlet([concentration] * len(classes)))
        parts.append(np.concatenate([_taken(by_class[n], c) for n, c in enumerate(counts)]))
    return parts


def _taken(numbers: list[int], count: int) -> NDArray[np.int64]:
    found = np.array(numbers[:count], np.int64)
    del numbers[:count]
    return found


def _compared(folder: Path, paths: Sequence[Path], steps: int, seeds: int, text: str) -> str:
    rows, gaps = [], []
    for seed in range(seeds):
        fleet = run_fleet(folder / f"fleet-{seed}-{steps}", paths[:-1], steps, seed)
        alone = run_alone(folder / f"alone-{seed}-{steps}", paths[-1], steps, seed)
        both = [100 * one["metrics"]["test_accuracy"] for one in (fleet, alone)]
        gaps.append(both[0] - both[1])
        rows.append((str(seed), *(f"{value:.1f}" for value in both), f"{gaps[-1]:+.1f}"))
    head = ("seed", "fleet, %", "one machine with all data, %", "difference")
    return (
        f"{text}, 'mlp 30', {steps} steps of 4 slopes; the machine takes as many passes as one "
        f"device. Mean difference {np.mean(gaps):+.1f} points.\n\n{bench.table(head, rows)}"
    )


def liars(folder: Path, data: Path, steps: int, seeds: int) -> str:
    """Return a table: what is learned where some devices send garbage, by rule.

    Beside each rule with liars stands the same rule on the honest devices alone.
    """
    draw = np.random.default_rng(0)
    with np.load(data) as arrays:
        order = draw.permutation(len(arrays["train_labels"]))[: DEVICES * _EACH]
    paths = write_devices(folder, data, np.split(order, DEVICES))
    noise = np.random.default_rng(1)

    def garbage(node: int, content: bytes) -> list[bytes]:
        answer = read_answer(content)
        if node < DEVICES - _LIARS or answer.kind != MEASURED or answer.number == 0:
            return [content]
        values = tuple(noise.normal(scale=_GARBAGE, size=len(answer.values)))
        return [replace(answer, values=values).encode()]

    def loss(rule: Rule, lie: bool, seed: int) -> float:
        run = folder / f"{rule}-{'liars' if lie else 'honest'}-{seed}-{steps}"
        honest = paths[: DEVICES - _LIARS]
        run_fleet(
            run, *((paths[:-1], steps, seed, rule, garbage) if lie else (honest, steps, seed, rule))
        )
        return _tested(run / "device-0" / "network.safetensors", paths[0])[0]

    rows, reference = [], [loss("mean", False, seed) for seed in range(seeds)]
    rules: tuple[Rule, ...] = ("median", "trimmed", "mean")
    for rule in rules[:-1] if steps < _FEW else rules:  # the mean is lost at once
        honest = [loss(rule, False, seed) for seed in range(seeds)]
        lied = [loss(rule, True, seed) for seed in range(seeds)]
        same = [one - other for one, other in zip(lied, honest, strict=True)]
        mean = [one - other for one, other in zip(lied, reference, strict=True)]
        rows.append((rule, *map(_interval, (honest, lied, same, mean))))
    head = (
        *("rule", f"{DEVICES - _LIARS} honest ones alone", f"with {_LIARS} liars"),
        *("minus the same rule, honest", "minus the mean, honest"),
    )
    return (
        f"{_LIARS} of {DEVICES} devices send normal numbers of deviation {_GARBAGE:g} for slopes "
        f"and losses; every device has samples of all classes, {steps} steps; test loss of what "
        f"is handed out, mean of {seeds} seeds, differences with their 95% interval (t).\n\n"
        f"{bench.table(head, rows)}"
    )


_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def _interval(values: Sequence[float]) -> str:
    """Return a mean with half of its 95% interval, of Student's t."""
    if len(values) not in _T:
        return f"{statistics.fmean(values):.3f}"
    half = _T[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):.3f} ± {half:.3f}"


def by_weights(folder: Path, data: Path, steps: int, seeds: int) -> str:
    """Return a table: devices that exchange weights, against one machine with all data."""
    with np.load(data) as arrays:
        labels = arrays["train_labels"]
    parts = dirichlet_parts(labels, np.random.default_rng(0), 1.0)
    paths, rows = write_devices(folder, data, parts), []
    exact = {"method": "adamw", "learning_rate": 3e-3, "evaluate_every": _LOCAL, "patience": 0}
    for seed in range(seeds):
        run = folder / f"fleet-{seed}-{steps}"
        fleet = run_fleet(run, paths[:-1], steps, seed, more=exact, exchange="adapters")
        alone = run_alone(folder / f"alone-{seed}-{steps}", paths[-1], steps, seed, exact)
        both = [100 * one["metrics"]["test_accuracy"] for one in (fleet, alone)]
        records, _ = journal.read(RunFolder(run / "server").journal)
        up = [r["weights"]["bytes"] for r in records if r["kind"] == "step"]
        rows.append(
            (str(seed), *(f"{v:.1f}" for v in both), f"{both[0] - both[1]:+.1f}", f"{up[0]}")
        )
    head = ("seed", "fleet, %", "one machine with all data, %", "difference", "bytes a round")
    return (
        f"{DEVICES} devices exchange weights in INT8 every {_LOCAL} steps of adamw, 'mlp 30', "
        f"label shares from Dirichlet(1), {steps} steps.\n\n{bench.table(head, rows)}"
    )


def _tested(network: Path, data: Path) -> tuple[float, float]:
    """Return the mean cross entropy of a network on the test samples, and its accuracy."""
    saved = network_file.load(network)
    runtime = NumpyNetwork(saved.network, saved.parameters)
    with np.load(data) as arrays:
        inputs = arrays["test_images"].astype(np.float32)[..., None]
        labels = arrays["test_labels"].astype(np.int64)
    logits = runtime.outputs((inputs - saved.mean) / saved.deviation, saved.parameters, {})
    losses, _ = cross_entropy(logits, labels)
    return float(losses.mean()), float((logits.argmax(axis=1) == labels).mean())
