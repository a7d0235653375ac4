"""`edge-train bench streaming`: a model larger than its cap, weights read from their file.

Whole runs on the SD-1.5 artifact of `bench engine`, photos to pictures and report, under caps from
the smallest up until one holds; then a zo step under that cap against one with weights in memory.
"""

import statistics
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.bench import engine
from edge_train.errors import EdgeTrainError
from edge_train.formats.artifact import open_artifact
from edge_train.formats.embedded import DATA
from edge_train.memory.measure import measure
from edge_train.memory.watch import Watch
from edge_train.records.folder import RunFolder
from edge_train.runtimes.onnx import vae as onnx_vae
from edge_train.units import format_bytes

_CAPS = (300_000_000, 350_000_000, 400_000_000, 450_000_000)
# As little as can be beside one step; nothing of it changes what is held.
_RECIPE = """
class_word = "thing"
steps = 1
queries = 2
epsilon = 0.1
threads = 1
flips = false
evaluation_samples = 1
preview_steps = 1
prompts = ["a photo of {}"]
lean = true
"""
_STEP = {"queries": 1, "sides": 2}  # two forward passes
_HEAD = ("cap", "ends", "peak of the process tree", "pictures", "weights read again")
_TIME_HEAD = ("zo step of two forwards", "CPU seconds", "seconds", "read again, times the file")


def main(out: Path, seeds: int) -> str:
    """Find the smallest cap that works, and what it costs; return Markdown tables."""
    export = engine.export(out, "int8-fast")
    artifact = out / "sd15-int8-fast"
    recipe = out / "streaming.toml"
    recipe.write_text(_RECIPE)
    rows, smallest = [], _CAPS[-1]
    for cap_bytes in _CAPS:
        row, works = _whole_run(out, recipe, artifact, cap_bytes)
        rows.append(row)
        if works:
            smallest = cap_bytes
            break
    parts = [
        engine.version(),
        *([export] if export else []),
        bench.table(_HEAD, rows),
        "Held by a fresh process after one photo or picture through the VAE in strips: encoder "
        f"{format_bytes(engine.fresh(encode_peak, artifact))}, decoder "
        f"{format_bytes(engine.fresh(decode_peak, artifact))}.",
        f"One thread, the two taken in turn in processes of their own, median of {seeds}:",
        _times(artifact, smallest, seeds),
    ]
    return "\n\n".join(parts)


def encode_peak(folder: Path) -> int:
    """Return the most this process held, with one photo encoded in strips."""
    artifact = open_artifact(folder)
    photo = np.zeros((1, artifact.resolution, artifact.resolution, 3), np.uint8)
    onnx_vae.encode_photos(artifact, photo, "cpu", 1, strips=True)
    return measure().peak_bytes


def decode_peak(folder: Path) -> int:
    """Return the most this process held, with one picture decoded in strips."""
    artifact = open_artifact(folder)
    side = artifact.resolution // artifact.latent_scale
    latents = np.zeros((1, artifact.latent_channels, side, side), np.float32)
    onnx_vae.decode_latents(artifact, latents, "cpu", 1, strips=True)
    return measure().peak_bytes


def _whole_run(out: Path, recipe: Path, artifact: Path, cap_bytes: int) -> tuple[list[str], bool]:
    """Run from photos to report under a cap; return a row, and whether everything was made."""
    megabytes = f"{cap_bytes // 1_000_000}MB"
    folder = out / f"streaming-{megabytes}"
    words = [str(DATA / "photos" / "bag"), "--recipe", str(recipe)]
    try:
        report = bench.run(folder, *words, "--model", str(artifact), "--mem", megabytes)
    except EdgeTrainError:
        return [format_bytes(cap_bytes), "stopped", "-", "-", "-"], False
    pictures = len(list(RunFolder(folder).samples.glob("after-*.png")))
    peak_bytes = report["measured_peak_bytes"]
    again = report["weights_reread_bytes"] / report["weights_bytes"]
    works = report["status"] == "done" and pictures > 0 and peak_bytes <= cap_bytes
    row = [format_bytes(cap_bytes), report["status"], format_bytes(peak_bytes), str(pictures)]
    return [*row, f"{again:.1f} times"], works


@dataclass(frozen=True)
class _Taken:
    """One step: its seconds, and how much of the mapped weights was let go during it."""

    cpu_seconds: float
    seconds: float
    released_bytes: int
    weights_bytes: int


def _times(artifact: Path, cap_bytes: int, repeats: int) -> str:
    """Return a table of a step with weights in memory and one that reads them from their file."""
    context, taken = get_context("spawn"), dict[str, list[_Taken]]()
    names = {"weights in memory": None, f"streamed under {format_bytes(cap_bytes)}": cap_bytes}
    servers = {}
    for name, cap in names.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=serve_steps, args=(theirs, artifact, cap), daemon=True)
        process.start()
        ours.recv()
        servers[name], taken[name] = (ours, process), []
    for number in range(repeats):
        for name, (pipe, _) in servers.items():
            pipe.send(number)
            taken[name].append(pipe.recv())
    for pipe, process in servers.values():
        pipe.send(None)
        process.join()
    rows, first = [], next(iter(taken))
    for name, own in taken.items():
        cells = [name]
        for field in ("cpu_seconds", "seconds"):
            middle, base = (
                statistics.median(getattr(one, field) for one in some)
                for some in (own, taken[first])
            )
            cells.append(f"{middle:.1f} ({middle / base:.2f} times)")
        again = statistics.median(one.released_bytes / one.weights_bytes for one in own)
        rows.append([*cells, f"{again:.2f}"])
    return bench.table(_TIME_HEAD, rows)


def serve_steps(pipe: Any, artifact: Path, cap_bytes: int | None) -> None:
    """Take a zo step for every number that arrives, until None; answer with what it took."""
    lean = cap_bytes is not None
    watch = Watch(cap_bytes).start()
    step = engine.make_step(artifact, lean, **_STEP)
    weights_bytes = (artifact / "step.weights").stat().st_size
    watch.adopt(step.runtime.pages)
    step.take(0)
    pipe.send(None)
    while (number := pipe.recv()) is not None:
        released, cpu, start = watch.released_bytes, time.process_time(), time.perf_counter()
        step.take(number)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        pipe.send(_Taken(cpu, seconds, watch.released_bytes - released, weights_bytes))
    watch.stop()
