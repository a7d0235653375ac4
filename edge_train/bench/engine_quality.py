"""`edge-train bench engine-quality`: what the profiles of an artifact keep of the float model.

As a program, `python -m edge_train.bench.engine_quality ARTIFACT BATCH OUT` writes the losses of a
batch, and the speed, of the engine of that interpreter, which needs no torch.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Batch
from edge_train.errors import TrainingStopped
from edge_train.estimators.slope_table import Exact, exact_slopes, relate
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.artifact import open_artifact
from edge_train.formats.embedded import EMBEDDED
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.memory.fresh import command as command_of
from edge_train.memory.fresh import module
from edge_train.optim.transforms import root_mean_square
from edge_train.quant import of_artifacts
from edge_train.rng import Key
from edge_train.tasks.personalize import encoding, parts
from edge_train.tasks.personalize.objective import PhotoCache
from edge_train.tasks.personalize.parts import TokenJob
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

_WANTED = 0.1  # the radius of a run on an exact engine
_RADII = (0.03, 0.1, 0.3)
_DIRECTIONS, _SAMPLES = 8, 24
_SLOPE_STEP = -5  # the key of draws that neither export nor training sees
_HARD_SEED = 42  # with which int8-fast learned two pictures of three, before steps had no rate
_TIMED = 5  # passes over the batch; the fastest counts


def main(out: Path, seeds: int, python: str = sys.executable) -> str:
    """Export every profile, measure its slopes, train `bag` with it; return Markdown tables.

    Args:
      python: interpreter that trains on the artifacts, and whose engine is compared with ours.
    """
    artifacts = {quant: exported(out / f"engine-{quant}", quant) for quant in of_artifacts()}
    return "\n\n".join(
        (
            f"Slopes, {seeds} seeds x {_DIRECTIONS} directions x {_SAMPLES} samples against the "
            "float model's gradient: correlation, and in brackets the share of equal signs.",
            _slopes(artifacts, seeds),
            f"`bag`, seeds {', '.join(map(str, _seeds(seeds)))}, 64 pictures each, one thread: "
            "mean (range).",
            _trained(out, artifacts, seeds, python),
            f"Engines, {_SAMPLES} losses, one sample in a call.",
            _engines(out, artifacts, python),
        )
    )


def _seeds(count: int) -> list[int]:
    """Return the seeds of runs, among them the one that once ended low.

    >>> _seeds(3)
    [0, 1, 42]
    """
    return [*range(count - 1), _HARD_SEED]


def exported(folder: Path, quant: str, model: str = EMBEDDED) -> Path:
    """Return the artifact in `folder`; the real command writes it if it is not there."""
    if not folder.is_dir():
        words = ["export", model, str(folder), "--quant", quant, "--threads", "1"]
        _run(command_of(words))
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TrainingStopped(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


@dataclass(frozen=True)
class _Setting:
    """A job with its photos encoded."""

    job: TokenJob
    cache: PhotoCache

    @classmethod
    def open(cls, model: str) -> "_Setting":
        job = parts.check(PersonalizeRecipe(model=model, flips=False, threads=1))
        return cls(job, encoding.encode_photos(job, *encoding.load_job_photos(job)))

    @property
    def scale(self) -> Mapping[str, float]:
        return {name: root_mean_square(block) for name, block in self.job.start.items()}

    def batch(self, seed: int) -> Batch:
        recipe = replace(self.job.recipe, samples=_SAMPLES)
        task = parts.build_task(replace(self.job, recipe=recipe), self.cache)
        return task.batch(Key(seed, _SLOPE_STEP))


def _slopes(artifacts: Mapping[str, Path], seeds: int) -> str:
    from edge_train.runtimes.torch.diffusion import TorchDiffusion

    torch = _Setting.open(EMBEDDED)
    runtime = parts.open_runtime(torch.job, Parameters(torch.job.start), torch.cache.ids)
    if not isinstance(runtime, TorchDiffusion):
        raise TypeError("gradients come from torch")
    batches = [torch.batch(seed) for seed in range(seeds)]
    exact = [
        exact_slopes(runtime, batch, torch.scale, _DIRECTIONS, Key(seed, _SLOPE_STEP))
        for seed, batch in enumerate(batches)
    ]
    rows = []
    for quant, path in artifacts.items():
        manifest = open_artifact(path).manifest
        used = max(_WANTED, manifest.safe_epsilon)
        cells = _slope_cells(path, (used, *_RADII), batches, exact)
        rows.append([quant, f"{used:g}", *cells])
    head = ["profile", "radius used", "there", *(f"at {radius:g}" for radius in _RADII)]
    return bench.table(head, rows)


def _slope_cells(
    path: Path, radii: tuple[float, ...], batches: list[Batch], exact: list[Exact]
) -> list[str]:
    """Return a cell for every radius: mean and least correlation over the seeds, and the signs."""
    setting = _Setting.open(str(path))
    runtime = parts.open_runtime(setting.job, Parameters(setting.job.start), setting.cache.ids)
    estimator = ZerothOrder(1.0, setting.scale)
    start = runtime.parameters
    cells = []
    for radius in radii:
        found = []
        for seed, batch in enumerate(batches):
            key = Key(seed, _SLOPE_STEP)
            moved = [estimator.perturbed(start, key, i, radius) for i in range(_DIRECTIONS)]
            losses = runtime.forward(batch, [*moved, start]).astype(np.float64)  # as in a step
            slopes = (losses[:-1] - losses[-1]) / radius
            found.append(relate(radius, slopes, exact[seed].slopes))
        mean = statistics.mean(row.correlation for row in found)
        least = min(row.correlation for row in found)
        signs = 100 * statistics.mean(row.sign_agreement for row in found)
        cells.append(f"{mean:.3f}, least {least:.3f} ({signs:.0f} %)")
    runtime.close()
    return cells


def _trained(out: Path, artifacts: Mapping[str, Path], seeds: int, python: str) -> str:
    cells: list[tuple[str, str, str, str]] = [
        ("torch, float32", "torch", EMBEDDED, sys.executable),
        *((f"onnx, {q}", f"onnx-{q}", str(path), python) for q, path in artifacts.items()),
    ]
    rows, float_share = [], 0.0
    for name, folder, model, interpreter in cells:
        reports = [
            bench.run(
                out / f"quality-{folder}-seed{seed}",
                *("--model", model, "--method", "zo", "--threads", "1", "--seed", str(seed)),
                python=interpreter,
            )
            for seed in _seeds(seeds)
        ]
        metrics = [report["metrics"] for report in reports]
        share = statistics.mean(m["class_accuracy"] for m in metrics)
        float_share = float_share or share
        rows.append(
            [
                name,
                bench.percent([m["class_accuracy"] for m in metrics]),
                f"{100 * (share - float_share):+.0f}",
                bench.percent([m["color_accuracy"] for m in metrics]),
                bench.percent([m["background_accuracy"] for m in metrics]),
                str(max(report["forwards"] for report in reports)),
                f"{statistics.median(r['training_seconds'] for r in reports):.0f}",
                f"{statistics.median(r['measured_peak_bytes'] for r in reports) / 1e6:.0f}",
            ]
        )
    shares = ["class", "points from float", "color", "background"]
    return bench.table(["cell", *shares, "forwards", "seconds", "peak MB"], rows)


def _engines(out: Path, artifacts: Mapping[str, Path], python: str) -> str:
    interpreters = list(dict.fromkeys((sys.executable, python)))
    batch = out / "engine-batch.safetensors"
    save_tensors(batch, _Setting.open(EMBEDDED).batch(0), {})
    rows = []
    for quant, path in artifacts.items():
        found = []
        for number, interpreter in enumerate(interpreters):
            target = out / f"engine-{quant}-{number}.safetensors"
            words = [str(path), str(batch), str(target)]
            _run(module("edge_train.bench.engine_quality", words, interpreter))
            found.append(load_tensors(target))
        first, last = found[0][0]["losses"], found[-1][0]["losses"]
        speeds = ", ".join(
            f"{facts['version']}: {1000 * float(facts['seconds']):.1f}" for _, facts in found
        )
        stated = open_artifact(path).manifest.loss_tolerance
        rows.append(
            [quant, f"{np.abs(last / first - 1).max():.1e}", f"{stated:.2g}", speeds],
        )
    head = ["profile", "largest relative difference", "stated tolerance", "ms per forward"]
    return bench.table(head, rows)


def measure_engine(artifact: Path, batch: Batch) -> tuple[NDArray[np.float32], float, str]:
    """Return losses (samples,), seconds per forward and the version of this process's engine."""
    from edge_train.runtimes.onnx.engine import load_engine

    job = parts.check(PersonalizeRecipe(model=str(artifact), threads=1))
    runtime = parts.open_runtime(job, Parameters(job.start), {"ids": batch["ids"]})
    runtime.batch_limit = 1
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        losses = runtime.forward(batch, [runtime.parameters])[0]
        times.append((time.perf_counter() - start) / _SAMPLES)
    return losses, min(times), load_engine().__version__


if __name__ == "__main__":
    artifact, given, target = map(Path, sys.argv[1:])
    measured, seconds, version = measure_engine(artifact, load_tensors(given)[0])
    save_tensors(target, {"losses": measured}, {"seconds": str(seconds), "version": version})
