"""`edge-train bench engine`: memory and speed of exported Stable Diffusion 1.5 on ONNX Runtime.

Exports are made where torch is installed and kept, so that the same command measures them in the
device environment too. Weights are random: they cost exactly what real ones cost.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.bench.token_steps import TokenSteps
from edge_train.errors import TrainingStopped
from edge_train.memory.fresh import command as command_of
from edge_train.memory.fresh import fresh as fresh_words
from edge_train.memory.measure import measure
from edge_train.rng import Key
from edge_train.units import format_bytes

QUANTS = ("int8-fast", "int4")
_REPEATS = 3
_MEMORY_HEAD = ("profile", "peak", "of it anonymous at the end", "seconds per forward")
_SPEED_HEAD = ("forward of one 512-pixel sample", "times as fast as torch float32")


def main(out: Path, seeds: int) -> str:
    """Export what is missing, measure in fresh processes; return Markdown tables."""
    exports = [export(out, quant) for quant in QUANTS]
    rows = []
    for quant in QUANTS:
        for lean in (False, True):
            cost = fresh(step_cost, out / f"sd15-{quant}", lean)
            forward_seconds = cost["seconds"] / cost["forwards"]
            rows.append(
                [
                    f"{quant}, lean" if lean else quant,
                    format_bytes(cost["peak_bytes"]),
                    format_bytes(cost["anon_bytes"]),
                    f"{forward_seconds:.1f}",
                ]
            )
    ratio = statistics.median(
        fresh(step_over_forwards, out / "sd15-int8-fast", seed) for seed in range(seeds)
    )
    parts = [
        version(),
        *(line for line in exports if line),
        "One zo step (5 forwards), text encoder included, in a fresh process with one thread:",
        bench.table(_MEMORY_HEAD, rows),
        f"A zo step over its forwards as bare engine calls, `int8-fast`: {ratio:.3f}.",
        f"Resident before a model is loaded: {format_bytes(fresh(bytes_before_model))}.",
    ]
    if find_spec("torch"):
        parts += [
            f"One thread, all loaded at once, calls taken in turn, median of {_REPEATS}:",
            bench.table(_SPEED_HEAD, speeds(out)),
        ]
    return "\n\n".join(parts)


def version() -> str:
    """Return which engine was measured."""
    from edge_train.runtimes.onnx.engine import load_engine

    return f"ONNX Runtime {load_engine().__version__}."


def export(out: Path, quant: str) -> str:
    """Export a profile unless it is there; return what the export took."""
    artifact = out / f"sd15-{quant}"
    if artifact.is_dir():
        return ""
    from edge_train.bench.sd15 import make_model

    model = out / "sd15-random"
    if not (model / "model_index.json").is_file():
        make_model(model)
    command = command_of(["export", str(model), str(artifact)])
    code = (
        "import resource, subprocess; done = subprocess.run(sys.argv[1:]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *fresh_words(code), *command, "--quant", quant, "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise TrainingStopped(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    peak_bytes = int(done.stdout.split()[-1]) * 1024
    minutes = (time.perf_counter() - start) / 60
    return f"Export `{quant}`: {format_bytes(peak_bytes)} at most, {minutes:.0f} minutes."


def fresh(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def bytes_before_model() -> int:
    """Return resident bytes of this process with everything imported that a run needs."""
    from edge_train.run import session  # noqa: F401
    from edge_train.runtimes.onnx import diffusion as onnx_diffusion  # noqa: F401
    from edge_train.runtimes.onnx.engine import load_engine
    from edge_train.tasks.personalize import job as personalize  # noqa: F401

    load_engine()
    return measure().resident_bytes


def step_cost(artifact: Path, lean: bool) -> dict[str, float]:
    """Take one zo step in this process; return its seconds and what the process held."""
    step = make_step(artifact, lean)
    start = time.perf_counter()
    step.take(0)
    seconds = time.perf_counter() - start
    usage = measure()
    return {
        "seconds": seconds,
        "forwards": step.step_forwards,
        "peak_bytes": usage.peak_bytes,
        "anon_bytes": usage.anon_bytes,
    }


def step_over_forwards(artifact: Path, seed: int) -> float:
    """Return the time of a zo step over that of as many bare engine calls, taken in turn."""
    step = make_step(artifact, False)
    forward = _bare_forward(step)
    forward()
    steps, bare = [], []
    for number in range(_REPEATS):
        start = time.perf_counter()
        step.take(_REPEATS * seed + number)
        middle = time.perf_counter()
        for _ in range(step.step_forwards):
            forward()
        steps.append(middle - start)
        bare.append(time.perf_counter() - middle)
    return statistics.median(steps) / statistics.median(bare)


def make_step(artifact: Path, lean: bool, **keys: Any) -> TokenSteps:
    """Return a zo step on noise.

    Args:
      keys: of the recipe.
    """
    from edge_train.tasks.personalize import parts as diffusion
    from edge_train.tasks.personalize.objective import build_cache
    from edge_train.tasks.personalize.recipe import PersonalizeRecipe

    job = diffusion.check(PersonalizeRecipe(model=str(artifact), threads=1, lean=lean, **keys))
    side = job.model.resolution // job.model.latent_scale
    mean = np.zeros((1, job.model.latent_channels, side, side), np.float32)
    return TokenSteps.of(job, build_cache(mean, np.ones_like(mean), [[job.ids("a photo of {}")]]))


def _bare_forward(step: TokenSteps) -> Callable[[], None]:
    """Return a bare engine call on one sample."""
    batch = step.task.batch(Key(0, 0))
    (_, feeds), *_ = step.runtime.feeds(batch, [step.runtime.parameters], 1)
    return lambda: step.runtime.session.run(["loss"], feeds)


def speeds(out: Path) -> list[list[str]]:
    """Return how much faster than torch float32 every engine takes one sample."""
    kinds = {"torch float32": "float32", "torch bfloat16": "bfloat16"}
    kinds |= {f"onnx {quant}": quant for quant in QUANTS}
    context = get_context("spawn")
    servers = {}
    for name, kind in kinds.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=serve_forwards, args=(theirs, out, kind), daemon=True)
        process.start()
        servers[name] = (ours, process)
        ours.recv()  # one model is loaded after another
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(_REPEATS):
        for name, (pipe, _) in servers.items():
            pipe.send(True)
            times[name].append(pipe.recv())
    for pipe, process in servers.values():
        pipe.send(False)
        process.join()
    median = {name: statistics.median(own) for name, own in times.items()}
    return [[name, f"{median['torch float32'] / own:.2f}"] for name, own in median.items()]


def serve_forwards(pipe: Any, out: Path, kind: str) -> None:
    """Take one forward for every True that arrives; answer with its seconds."""
    if kind in QUANTS:
        forward = _bare_forward(make_step(out / f"sd15-{kind}", False))
    else:
        forward = _torch_forward(out, kind)
    forward()
    pipe.send(0.0)
    while pipe.recv():
        start = time.perf_counter()
        forward()
        pipe.send(time.perf_counter() - start)


def _torch_forward(out: Path, dtype: str) -> Callable[[], None]:
    """Return a forward of text encoder and U-Net by diffusers' and transformers' own modules."""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.set_num_threads(1)
    model, kind = out / "sd15-random", getattr(torch, dtype)
    text: Any = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=kind).eval()
    unet: Any = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=kind).eval()
    latents = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)).to(kind)
    ids, timesteps = torch.zeros(1, 77, dtype=torch.int64), torch.tensor([500])

    def forward() -> None:
        with torch.no_grad():
            output = unet(latents, timesteps, text(ids).last_hidden_state).sample
            (output.float() - latents.float()).square().mean().item()

    return forward
