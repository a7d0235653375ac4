"""`edge-train bench continual`: tasks one after the other, without the data of the old ones.

Two sequences, learned by the real command, a run a task: ten permutations of the pixels of MNIST,
whose ten classes stay, and five pairs of classes of CIFAR-10 behind a frozen EfficientNet-Lite0,
whose classes are new each time. `none` is plain fine-tuning, `gpm` and `cuber` protect old tasks;
the first task is the same run for all three. What is finished is read and not done again.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.bench.feature_spaces import imagenet
from edge_train.errors import InputError
from edge_train.formats import learned_tasks
from edge_train.rng import Key
from edge_train.tasks.network.datasets import Samples, load

_WAYS = ("none", "gpm", "cuber")
_CAP, _NETWORK, _BATCH, _EPOCHS = "400MB", "mlp 100 100", 10, 5
_TRAIN, _TEST = 4000, 1000  # of a permutation
_PERMUTATIONS = 10
# Method, weights, most seeds and tasks of the pairs: the last two are looked at, not measured.
_PAIRED = (
    ("backprop", "none", None, 5),
    ("tpsgd", "none", 1, 2),
    ("backprop", "int8", 1, 2),
)
_RATES = {"backprop": "0.1", "tpsgd": "0.1"}
# Of Student's distribution, 95 % on both sides, by the number of seeds.
_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
_HEAD = (
    *(
        "tasks",
        "method",
        "weights",
        "seeds",
        "--continual",
        "accuracy, %",
        "backward transfer, points",
    ),
    *("forgetting, points", "all classes, %", "bases, MB", "peak, MB"),
)


@dataclass(frozen=True)
class _Sequence:
    """A row of tasks: how to write the data of each, and how it is trained."""

    name: str
    tasks: int
    write: Callable[[Path, int, int], None]  # file, seed, task
    method: str
    quant: str
    directions: int  # that a task may add
    most_seeds: int | None = None


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    features: Path | None = None,
    samples: int = _TRAIN,
    limit: int = _PERMUTATIONS,
) -> str:
    """Learn every sequence in every way; return Markdown tables.

    Args:
      data: folder with mnist.npz and cifar10_subset_jpeg.npz.
      features: folder with efficientnet-lite0*.pth; without, the pairs of classes are left out.
      samples: training samples of a permutation.
      limit: tasks of a sequence.

    Raises:
      InputError: data are not named, or not there.
    """
    if data is None:
        raise InputError("bench continual needs --data FOLDER with mnist.npz.")
    rows, told = [], []
    for one in _sequences(out, data, features, samples, limit):
        count = min(seeds, one.most_seeds or seeds)
        found = {way: [_learned(out, one, way, seed) for seed in range(count)] for way in _WAYS}
        rows += [_row(one, way, runs) for way, runs in found.items()]
        told.append(
            f"- {one.name}, {one.method}, weights {one.quant}, seeds {count}: "
            + "; ".join(_against(found, other) for other in ("gpm", "none"))
        )
    return (
        f"{bench.table(_HEAD, rows)}\n\ncuber against the others, paired by seed:\n\n"
        + "\n".join(told)
    )


def _sequences(
    out: Path, data: Path, features: Path | None, samples: int, limit: int
) -> Iterator[_Sequence]:
    write = partial(_permuted, data / "mnist.npz", samples)
    yield _Sequence("permuted MNIST", min(limit, _PERMUTATIONS), write, "backprop", "none", 256)
    if features is None:
        return
    kept = _features(out, data / "cifar10_subset_jpeg.npz", features)
    for method, quant, most, tasks in _PAIRED:
        write, count = partial(_pair, kept), min(limit, tasks)
        yield _Sequence("pairs of CIFAR-10", count, write, method, quant, 512, most)


def _permuted(mnist: Path, samples: int, path: Path, seed: int, task: int) -> None:
    """Write a permutation of the pixels; the first task of a sequence has them as they are."""
    known = load(mnist, train_samples=None)
    draw = Key(seed, task).generator("permutation")
    order = draw.permutation(known.train.inputs[0].size) if task else slice(None)
    parts = {}
    for part, some, count in (("train", known.train, samples), ("test", known.test, _TEST)):
        chosen = some.taken(draw.permutation(len(some.labels))[:count])
        flat = chosen.inputs.reshape(count, -1)[:, order]
        parts[part] = Samples(flat.reshape(count, 28, 28, 1), chosen.labels)
    _write(path, parts, known.class_names)


def _pair(kept: Path, path: Path, seed: int, task: int) -> None:
    """Write the features of two classes, by the seed's order of all ten."""
    known = load(kept)
    pair = Key(seed, 0).generator("order of classes").permutation(10)[2 * task : 2 * task + 2]
    parts = {
        part: some.taken(np.flatnonzero(np.isin(some.labels, pair)))
        for part, some in (("train", known.train), ("test", known.test))
    }
    _write(path, parts, known.class_names)


def _features(out: Path, cifar: Path, folder: Path) -> Path:
    """Return the file of the features of all pictures, made once; one channel, one scale."""
    path = out / "continual-features.npz"
    if path.is_file():
        return path
    weights = sorted(folder.glob("**/efficientnet-lite0*.pth"))
    if not weights:
        raise InputError(f"--features {folder}: there is no efficientnet-lite0*.pth in it.")
    space, known = imagenet(weights[0]), load(cifar)
    parts = {}
    for part, some in (("train", known.train), ("test", known.test)):
        found = space.features(some.inputs)
        parts[part] = Samples(found.reshape(len(found), -1, 1, 1), some.labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, parts, known.class_names)
    return path


def _write(path: Path, parts: Mapping[str, Samples], names: Sequence[str]) -> None:
    arrays: dict[str, NDArray[Any]] = {"class_names": np.array(names)}
    for part, some in parts.items():
        arrays |= {f"{part}_inputs": some.inputs, f"{part}_labels": some.labels}
    partial_path = path.with_suffix(".partial.npz")
    np.savez(partial_path, **arrays)  # type: ignore[arg-type] # its stub takes a flag by name
    partial_path.replace(path)


def _learned(out: Path, one: _Sequence, way: str, seed: int) -> dict[str, Any]:
    """Return the report of the last run of a sequence, with the size of its bases."""
    label = f"{one.name}-{one.method}-{one.quant}-seed{seed}".replace(" ", "-")
    place = out / "continual" / label
    place.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {}
    before: Path | None = None
    for task in range(one.tasks):
        data = place / f"task{task + 1}.npz"
        run = place / (f"{way}-{task + 1}" if task else "first")
        if not data.is_file():
            one.write(data, seed, task)
        if before is None:
            with np.load(data) as arrays:
                steps = _EPOCHS * len(arrays["train_labels"]) // _BATCH
            words = [
                *("--task", "network", "--network", _NETWORK, "--method", one.method),
                *("--quant", one.quant, "--momentum", "0", "--lr", _RATES[one.method]),
                *("--samples", str(_BATCH), "--steps", str(steps), "--seed", str(seed)),
                *("--kept-examples", str(_TEST), "--most-directions", str(one.directions)),
            ]
        else:
            words = ["--next", str(before), "--continual", way]
        report = bench.run(run, *words, "--data", str(data), "--mem", _CAP)
        before = run
    assert before is not None
    report["bases_bytes"] = learned_tasks.load(before / learned_tasks.FILE).nbytes
    return report


def _row(one: _Sequence, way: str, runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    tasks = [run["metrics"]["tasks"] for run in runs]
    among_all = [statistics.mean(found["among_all_classes"]) for found in tasks]
    return (
        *(f"{one.tasks} {one.name}", one.method, one.quant, str(len(runs)), way),
        _interval([100 * found["accuracy"] for found in tasks]),
        _interval([100 * found["backward_transfer"] for found in tasks], signed=True),
        _interval([100 * found["forgetting"] for found in tasks], signed=True),
        _interval([100 * share for share in among_all]),
        f"{max(run['bases_bytes'] for run in runs) / 1e6:.2f}",
        f"{max(run['measured_peak_bytes'] for run in runs) / 1e6:.0f}",
    )


def _against(found: Mapping[str, Sequence[Mapping[str, Any]]], other: str) -> str:
    """Return by how much cuber is better than another way, seed by seed."""
    said = []
    for name, words in (("accuracy", "accuracy"), ("backward_transfer", "backward transfer")):
        pairs = zip(found["cuber"], found[other], strict=True)
        values = [
            100 * (a["metrics"]["tasks"][name] - b["metrics"]["tasks"][name]) for a, b in pairs
        ]
        said.append(f"{words} {_interval(values, signed=True)}")
    return f"minus {other}, points: {', '.join(said)}"


def _interval(values: Sequence[float], *, signed: bool = False) -> str:
    """Return a mean and half of its 95 % interval by Student's distribution."""
    mean = f"{statistics.mean(values):{'+' if signed else ''}.2f}"
    if len(values) < 2:
        return mean
    student = _STUDENT.get(len(values), 2.0)
    return f"{mean} ± {student * statistics.stdev(values) / math.sqrt(len(values)):.2f}"
