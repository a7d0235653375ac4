"""`edge-train bench tpsgd`: layer-by-layer training against backprop: accuracy, bytes, time."""

import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.errors import InputError, TrainingStopped
from edge_train.memory.fresh import command as command_of
from edge_train.memory.fresh import module
from edge_train.tasks.network.datasets import load

_RATES = (
    0.25,
    0.5,
    1.0,
)  # tried for every method and network, on held-out samples of Fashion-MNIST
_BATCH = 100
_EPOCHS = 10
_TUNING_SHARE = 0.4  # of the steps
_COST_STEPS = 12
_DIGITS = ("mnist", "fashion_mnist")
_NETWORKS = ("mlp 500 500", "lenet", "gru 64 64")
_VGG_LIKE = (
    "conv 16 3, batchnorm, relu, conv 16 3, batchnorm, relu, maxpool 2, "
    "conv 32 3, batchnorm, relu, conv 32 3, batchnorm, relu, maxpool 2, "
    "conv 64 3, batchnorm, relu, maxpool 2, dense 128, batchnorm, relu"
)
_METHODS: dict[str, dict[str, Any]] = {
    "backprop": {"method": "backprop"},
    "tpsgd": {"method": "tpsgd"},
    "local": {"method": "local"},
}
_INT8 = {"quant": "int8", "momentum": 0.0}
_RELATIVES: dict[str, dict[str, Any]] = {
    "backprop, int8 weights": {"method": "backprop", **_INT8},
    "tpsgd, int8 weights": {"method": "tpsgd", **_INT8},
    "tpsgd, sequential, int8 weights": {"method": "tpsgd", "mode": "sequential", **_INT8},
    "tpsgd, l2": {"method": "tpsgd", "loss": "l2"},
    "tpsgd, sign": {"method": "tpsgd", "loss": "sign", "learning_rate": 0.02},
    "tpsgd, logistic": {"method": "tpsgd", "loss": "logistic"},
    "tpsgd, cosine": {"method": "tpsgd", "loss": "cosine"},
    "dfa": {"method": "dfa"},
    "drtp": {"method": "drtp", "learning_rate": 0.05},
}


class _Bench:
    """Runs cells in fresh processes below one folder; a finished cell is read, not run again."""

    def __init__(self, out: Path, data: Path, samples: int, seeds: int) -> None:
        self.out, self.data, self.samples, self.seeds = out, data, samples, seeds
        self.steps = _EPOCHS * (samples - min(1000, samples // 10)) // _BATCH
        self._rates: dict[str, float] = {}

    def recipe(self, name: str, keys: Mapping[str, Any]) -> Path:
        """Write a recipe and return its path."""
        values = {"task": "network", "samples": _BATCH, "evaluate_every": 90, **keys}
        path = self.out / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
        return path

    def run(self, name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return the report of a recipe's run."""
        name = name.replace(",", "").replace(" ", "-")
        path = self.recipe(name, {"steps": self.steps, **keys})
        return bench.run(self.out / name, "--recipe", str(path))

    def source(self, dataset: str) -> dict[str, Any]:
        """Return the keys that name a data set, cut to the size of this bench."""
        return {
            "data": str((self.data / f"{dataset}.npz").resolve()),
            "train_samples": self.samples,
            "test_samples": max(200, self.samples // 5),
        }

    def rate(self, network: str, name: str, keys: Mapping[str, Any]) -> float:
        """Return the best of three rates by the held-out loss of short runs on Fashion-MNIST."""
        if "learning_rate" in keys:
            return float(keys["learning_rate"])
        cell = f"{network} {name}"
        if cell not in self._rates:
            losses = {
                rate: self.run(
                    f"tune {cell[:60]} {rate:g}",
                    {
                        **self.source("fashion_mnist"),
                        "network": network,
                        "learning_rate": rate,
                        "steps": round(_TUNING_SHARE * self.steps),
                        "seed": 100,
                        **keys,
                    },
                )["eval"]["best"]
                for rate in _RATES
            }
            self._rates[cell] = min(losses, key=losses.__getitem__)
        return self._rates[cell]

    def accuracies(
        self, dataset: str, network: str, name: str, keys: Mapping[str, Any], seeds: int
    ) -> list[float]:
        """Return test accuracies in percent, one per seed, at the tuned rate."""
        rate = self.rate(network, name, keys)
        found = []
        for seed in range(seeds):
            cell = {**self.source(dataset), "network": network, "learning_rate": rate, "seed": seed}
            report = self.run(f"{dataset} {network[:12]} {name} {seed}", {**cell, **keys})
            found.append(100 * report["metrics"]["test_accuracy"])
        return found

    def cost(self, name: str, keys: Mapping[str, Any]) -> dict[str, float]:
        """Return what steps hold and take in a fresh process."""
        stored = self.out / "cost" / f"{name.replace(',', '').replace(' ', '-')}.json"
        if not stored.exists():
            path = self.recipe(f"cost/{stored.stem}", {**self.source("fashion_mnist"), **keys})
            words = [str(path), str(_COST_STEPS)]
            command = module("edge_train.bench.step_cost", words)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise TrainingStopped(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
            stored.write_text(done.stdout)
        found: dict[str, float] = json.loads(stored.read_text())
        return found


def main(out: Path, seeds: int, data: Path | None = None, samples: int = 10_000) -> str:
    """Run every cell with seeds 0, 1, ... in fresh processes; return Markdown tables.

    Args:
      data: folder with `mnist.npz`, `fashion_mnist.npz` and `cifar10_subset_jpeg.npz`.
      samples: of each training set; fewer are faster.

    Raises:
      InputError: no `data`, or a data set is missing from it.
    """
    if data is None:
        raise InputError("bench tpsgd needs the folder of its data sets: --data FOLDER.")
    for name in ("mnist", "fashion_mnist", "cifar10_subset_jpeg"):
        if not (data / f"{name}.npz").is_file():
            raise InputError(f"{data}: {name}.npz is missing.")
    work = _Bench(out, data, samples, seeds)
    parts = [
        f"{samples} training samples of each set ({min(1000, samples // 10)} of them held out), "
        f"{max(200, samples // 5)} test samples, batch {_BATCH}, {work.steps} steps "
        f"({_EPOCHS} epochs), seeds 0 to {seeds - 1}. Rates: the best of "
        f"{', '.join(map(str, _RATES))} for every network and method by the held-out loss of "
        "shorter runs on Fashion-MNIST with another seed.",
        _accuracy_table(work),
        _relatives_table(work),
        _cost_table(work),
        _cifar_table(work),
        _checks(work),
        _adapter_table(work),
    ]
    return "\n\n".join(parts)


def _mean(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def _accuracy_table(work: _Bench) -> str:
    rows = []
    for dataset in _DIGITS:
        for network in _NETWORKS:
            found = {
                name: work.accuracies(dataset, network, name, keys, work.seeds)
                for name, keys in _METHODS.items()
            }
            means = {name: statistics.mean(values) for name, values in found.items()}
            gaps = [f"{means['backprop'] - means[name]:+.1f}" for name in ("tpsgd", "local")]
            rows.append([dataset, network, *map(_mean, found.values()), *gaps])
    head = ["data", "network", *_METHODS, "backprop - tpsgd", "backprop - local"]
    return "Test accuracy in percent:\n\n" + bench.table(head, rows)


def _relatives_table(work: _Bench) -> str:
    network = _NETWORKS[0]
    rows = [
        [name, *(_mean(work.accuracies(data, network, name, keys, 1)) for data in _DIGITS)]
        for name, keys in {**_METHODS, **_RELATIVES}.items()
    ]
    return f"Relatives on `{network}`:\n\n" + bench.table(
        ["method", "mnist", "fashion_mnist"], rows
    )


def _cost_table(work: _Bench) -> str:
    networks = {
        "mlp 500 500": None,
        "mlp 500 500 500 500 500 500": None,
        "mlp 1000 1000": None,
        "lenet": 10,
        "gru 128 128": 25,
    }
    rows = []
    for network, part in networks.items():
        cells: dict[str, dict[str, Any]] = {
            "backprop": {"method": "backprop"},
            "backprop, micro-batches of 10": {"method": "backprop", "micro_batch": 10},
            "backprop, int8 weights": {"method": "backprop", **_INT8},
            "tpsgd": {"method": "tpsgd"},
            "tpsgd, int8 weights": {"method": "tpsgd", **_INT8},
        }
        if part:
            parts = {"micro_batch": part}
            cells["backprop, int8, micro-batches of 10"] = {
                "method": "backprop",
                "micro_batch": 10,
                **_INT8,
            }
            cells[f"tpsgd, parts of {part}"] = {"method": "tpsgd", **parts}
            cells[f"tpsgd, int8, parts of {part}"] = {"method": "tpsgd", **_INT8, **parts}
        costs = {
            name: work.cost(f"{network} {name}", {"network": network, **keys})
            for name, keys in cells.items()
        }
        full = costs["backprop"]
        rows += [
            [
                network,
                name,
                f"{cost['held_bytes'] / 1e6:.1f}",
                f"{100 * cost['held_bytes'] / full['held_bytes']:.0f} %",
                f"{100 * cost['array_bytes'] / full['array_bytes']:.0f} %",
                f"{cost['step_seconds'] * 1e3:.1f}",
                f"{cost['step_seconds'] / full['step_seconds']:.2f}",
            ]
            for name, cost in costs.items()
        ]
    head = ["network", "method", "MB above the data", "of backprop", "arrays alone"]
    head += ["CPU ms a step", "of backprop"]
    words = "Peak of steps above the loaded data and CPU time, each in a fresh process, batch 100:"
    return f"{words}\n\n{bench.table(head, rows)}"


def _cifar_table(work: _Bench) -> str:
    """Two depths on colored photos, one seed, at the rates of the nearest tuned network."""
    rows = []
    for network, words, steps in (
        ("lenet", "2", 900),
        (_VGG_LIKE, "5, VGG-like", 150),
    ):
        found = []
        for name, keys in _METHODS.items():
            cell = {
                **work.source("cifar10_subset_jpeg"),
                "test_samples": 1000,
                "network": network,
                "learning_rate": work.rate("lenet", name, keys),
                "steps": min(steps, work.steps),
                "evaluation_samples": min(500, work.samples // 10),
                "evaluate_every": 100,
                "seed": 0,
            }
            if network == _VGG_LIKE and name != "backprop":
                cell["targets"] = "pooled"  # whole maps of 16,000 numbers make `local` diverge
            report = work.run(f"cifar {network[:12]} {name}", {**cell, **keys})
            found.append(f"{100 * report['metrics']['test_accuracy']:.1f}")
        rows.append([words, str(min(steps, work.steps)), *found])
    words = (
        "CIFAR-10 subset, seed 0, test accuracy in percent (the VGG-like net meets its local "
        "targets with means over positions)"
    )
    head = ["convolutions", "steps", *_METHODS]
    return f"{words}:\n\n{bench.table(head, rows)}"


def _checks(work: _Bench) -> str:
    """Shuffled labels, the projection's scale, the batch size."""
    network = _NETWORKS[0]
    shuffled = work.out / "shuffled.npz"
    source = work.source("fashion_mnist")
    if not shuffled.exists():
        data = load(Path(source["data"]), train_samples=work.samples, test_samples=2000)
        order = np.random.default_rng(0).permutation(len(data.train.labels))
        np.savez(
            shuffled,
            train_images=data.train.inputs,
            train_labels=data.train.labels[order],
            test_images=data.test.inputs,
            test_labels=data.test.labels,
        )
    rate = work.rate(network, "tpsgd", _METHODS["tpsgd"])
    base = {"network": network, "learning_rate": rate, "method": "tpsgd", "seed": 0}
    null = work.run("null", {**base, "data": str(shuffled.resolve())})["metrics"]["test_accuracy"]
    lines = [
        f"Random labels (null test): {100 * null:.1f} % of the true test labels, chance is 10 %.",
        "Projection scale (`mlp 500 500`, Fashion-MNIST, seed 0), test accuracy in percent:",
    ]
    rows = []
    for loss, scales in (("softmax", (0.3, 1.0, 3.0, 10.0)), ("l2", (0.1, 0.3, 0.5, 0.9))):
        for scale in scales:
            keys = {**source, **base, "loss": loss, "projection_scale": scale}
            if loss == "l2":
                keys["learning_rate"] = work.rate(network, "tpsgd, l2", _RELATIVES["tpsgd, l2"])
            report = work.run(f"scale {loss} {scale:g}", keys)
            rows.append([loss, f"{scale:g}", f"{100 * report['metrics']['test_accuracy']:.1f}"])
    lines.append(bench.table(["loss", "scale", "accuracy"], rows))
    rows = []
    for batch in (50, 100, 200):
        steps = work.steps * _BATCH // batch
        keys = {**source, **base, "samples": batch, "steps": steps}
        report = work.run(f"batch {batch}", keys)
        rows.append([str(batch), f"{100 * report['metrics']['test_accuracy']:.1f}"])
    lines.append("The same rate and epochs at other batch sizes (the step is a mean over samples):")
    lines.append(bench.table(["batch", "accuracy"], rows))
    return "\n\n".join(lines)


def _adapter_table(work: _Bench) -> str:
    """A frozen convolutional net meets pictures with inverted contrast, turned by 90 degrees."""
    source = work.source("fashion_mnist")
    old = work.out / "old.npz"
    new = work.out / "shifted.npz"
    if not new.exists():
        data = load(
            Path(source["data"]),
            train_samples=work.samples,
            test_samples=source["test_samples"],
        )
        for path, change in ((old, np.asarray), (new, _shifted)):
            np.savez(
                path,
                train_images=change(data.train.inputs),
                train_labels=data.train.labels,
                test_images=change(data.test.inputs),
                test_labels=data.test.labels,
            )
    rate = work.rate("lenet", "backprop", _METHODS["backprop"])
    keys: dict[str, Any] = {"data": str(old.resolve()), "network": "lenet", "method": "backprop"}
    work.run("backbone", {**keys, "learning_rate": rate})
    saved = (work.out / "backbone" / "network.safetensors").resolve()
    graph = work.out / "backbone.onnx"
    if not graph.exists():
        command = command_of(["export", str(saved), str(graph)])
        done = subprocess.run(
            [*command, "--quant", "int8", "--blocks", "2"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            return f"Adapter: not run, {done.stderr.strip()}"
    rows, gains = [], {}
    before = old_before = 0.0
    for name, backbone, method, blocks in (
        ("backprop", saved, "backprop", 2),
        ("tpsgd", saved, "tpsgd", 2),
        ("local", saved, "local", 2),
        ("tpsgd, backbone in INT8 on ONNX Runtime", graph.resolve(), "tpsgd", None),
    ):
        tuned: dict[float, dict[str, Any]] = {}
        for rate in _RATES:
            cell = {
                "data": str(new.resolve()),
                "old_data": str(old.resolve()),
                "backbone": str(backbone),
                "network": "mlp 120 84",
                "method": method,
                "learning_rate": rate,
                "steps": work.steps // 2,
            }
            if blocks:
                cell["backbone_blocks"] = blocks
            tuned[rate] = work.run(f"adapter {name} {rate:g}", cell)
        best = min(tuned.values(), key=lambda report: float(report["eval"]["best"]))
        metrics = best["metrics"]
        if "backbone_accuracy" in metrics:
            before = metrics["backbone_accuracy"]
            old_before = metrics["old_backbone_accuracy"]
        gains[name] = metrics["test_accuracy"] - before
        share = f"{100 * gains[name] / gains['backprop']:.0f} %"
        rows.append(
            [name, *(f"{100 * metrics[k]:.1f}" for k in ("test_accuracy", "old_accuracy")), share]
        )
    head = ["adapter trained by", "shifted", "old domain through the adapter", "recovered"]
    return (
        "Adapter: a `lenet` trained by backprop on Fashion-MNIST, its two convolutions frozen, "
        "`mlp 120 84` trained on pictures with inverted contrast, turned by 90 degrees. The "
        f"backbone alone: {100 * old_before:.1f} % on the old pictures, {100 * before:.1f} % on "
        "the shifted ones. Without the adapter the old accuracy stays as it was.\n\n"
        + bench.table(head, rows)
    )


def _shifted(images: Any) -> Any:
    return 255 - np.rot90(images, axes=(1, 2))
