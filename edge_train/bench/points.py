"""Losses of an autoencoder of clouds at equal processor time: v-DSW, sliced, max-sliced, Chamfer.

    edge-train bench points --data FOLDER [--seeds 3] [--limit SECONDS]

FOLDER holds mnist.npz and shapes/ with meshes (.obj). Every loss trains the same network for the
same processor time; rates are chosen on clouds of their own. What is in --out already is read.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.bench import table
from edge_train.bench.matching import wasserstein2
from edge_train.errors import InputError
from edge_train.formats.clouds.cloud import frame_of, read_mesh, surface_points
from edge_train.optim.transforms import Adam
from edge_train.rng import Key
from edge_train.tasks.points.distances import chamfer
from edge_train.tasks.points.engine import CloudEngine
from edge_train.tasks.points.network import Autoencoder, Shape, start_of
from edge_train.tasks.points.objective import Reconstruction
from edge_train.tasks.points.slicer import start_of as start_of_slicer

_LOSSES = ("v-dsw", "sliced", "max-sliced", "chamfer")
_RATES = (1e-3, 3e-3)
_SECONDS = 20  # of the processor, of each training
_POINTS, _SLICES, _KAPPA, _BATCH = 256, 16, 10.0, 16
_SHAPE = Shape(points=_POINTS, code=32, width=64, decoder="mlp")
_TRAINED, _CHOSEN_ON, _TESTED = 600, 16, 48  # clouds
Row = dict[str, Any]


def main(out: Path, seeds: int, data: Path | None = None, limit: int = _SECONDS) -> str:
    """Return the tables.

    Args:
      data: the folder with both sets.
      limit: seconds of the processor for each training.

    Raises:
      InputError: there is no such folder.
    """
    if data is None or not (data / "mnist.npz").is_file() or not (data / "shapes").is_dir():
        raise InputError("bench points needs --data, a folder with mnist.npz and shapes/*.obj.")
    folder = out / "points"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    known: dict[str, Row] = {}
    if path.is_file():
        known = {row["key"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())}
    found = []
    for name, clouds in (("MNIST", digits(data)), ("meshes", meshes(data))):
        lines = []
        for loss in _LOSSES:
            rows = [_best(path, known, name, clouds, loss, seed, limit) for seed in range(seeds)]
            lines.append(
                (
                    loss,
                    _mean([row["wasserstein"] for row in rows]),
                    _mean([row["chamfer"] for row in rows]),
                    ", ".join(f"{row['rate']:g}" for row in rows),
                    f"{statistics.mean(row['steps'] for row in rows):,.0f}",
                )
            )
        head = ("loss", "Wasserstein-2", "Chamfer, squared", "rate of each seed", "steps")
        title = f"{name}: {seeds} seeds, {limit} seconds of the processor each; lower is better:"
        found.append(f"{title}\n\n{table(head, lines)}")
    return "\n\n".join(found)


def _mean(values: list[float]) -> str:
    """Return a mean and the range over seeds."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


def _best(
    path: Path, known: dict[str, Row], name: str, clouds: Array, loss: str, seed: int, limit: int
) -> Row:
    """Return the row of the rate that was best on the clouds that rates are chosen on."""
    rows = []
    for rate in _RATES:
        key = json.dumps([name, loss, seed, rate, limit])
        if key not in known:
            known[key] = {"key": key, "rate": rate, **measured(clouds, loss, seed, rate, limit)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[key]) + "\n")
        rows.append(known[key])
    return min(rows, key=lambda row: float(row["chosen_by"]))


def measured(clouds: Array, loss: str, seed: int, rate: float, seconds: float) -> Row:
    """Train for some processor time and return the distances of clouds that were held out.

    The rate falls as a cosine of the time that is used up.
    """
    trained = clouds[:_TRAINED]
    task = Reconstruction(trained, seed, _BATCH, 1)
    values = start_of(_SHAPE, seed) | (start_of_slicer(seed) if loss == "v-dsw" else {})
    parameters, adam = Parameters(values), Adam()
    engine = CloudEngine(_SHAPE, parameters, loss, _SLICES, _KAPPA)
    states = {name: adam.init(parameters[name]) for name in parameters}
    began, step, used = time.process_time(), 0, 0.0
    while used < 1:
        scale = np.float32(rate * 0.5 * (1 + np.cos(np.pi * used)))
        key = Key(seed, step)

        def apply(name: str, gradient: Any, scale: Any = scale, key: Key = key) -> None:
            update = adam.update(gradient, states[name], parameters[name])
            parameters.subtract(name, np.asarray(update) * scale, key)

        engine.backward(task.batch(key), apply)
        step += 1
        used = (time.process_time() - began) / seconds
    network = Autoencoder(_SHAPE, parameters)
    chosen = clouds[_TRAINED : _TRAINED + _CHOSEN_ON]
    tested = clouds[_TRAINED + _CHOSEN_ON :][:_TESTED]
    pairs = list(zip(tested, network.forward(tested), strict=True))
    others = zip(chosen, network.forward(chosen), strict=True)
    return {
        "chosen_by": statistics.mean(wasserstein2(x, y) for x, y in others),
        "wasserstein": statistics.mean(wasserstein2(x, y) for x, y in pairs),
        "chamfer": statistics.mean(chamfer(x, y)[0] for x, y in pairs),
        "steps": step,
    }


def digits(data: Path) -> Array:
    """Return digits as flat clouds: points drawn where the ink is, as dense as it is dark."""
    with np.load(data / "mnist.npz", allow_pickle=False) as arrays:
        name = next(one for one in arrays.files if one.endswith("images") and "train" in one)
        pictures = arrays[name][: _TRAINED + _CHOSEN_ON + _TESTED]
    found = []
    for number, picture in enumerate(pictures.reshape(len(pictures), 28, 28)):
        draw = Key(0, number).generator("ink")
        ink = picture.astype(np.float64).ravel()
        which = draw.choice(ink.size, _POINTS, p=ink / ink.sum())
        place = np.stack([which % 28, 27 - which // 28], axis=1) + draw.random((_POINTS, 2))
        flat = np.concatenate([place, np.zeros((_POINTS, 1))], axis=1)
        found.append(frame_of(flat).inward(flat))
    return np.stack(found)


def meshes(data: Path) -> Array:
    """Return clouds of meshes in turn, each stretched along its axes and turned by chance."""
    shapes = [read_mesh(path) for path in sorted((data / "shapes").glob("*.obj"))]
    found = []
    for number in range(_TRAINED + _CHOSEN_ON + _TESTED):
        draw = Key(0, number).generator("stretch")
        corners, triangles = shapes[number % len(shapes)]
        points = surface_points(corners, triangles, _POINTS, Key(0, number))
        assert points is not None
        points = points * draw.uniform(0.6, 1.4, 3)
        angle = draw.uniform(0, 2 * np.pi)
        cosine, sine = np.cos(angle), np.sin(angle)
        points = points @ np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        found.append(frame_of(points).inward(points))
    return np.stack(found)
