"""One training loop for every stage: keyed random draws, moving average, and a safe resume.

A stage that is killed and started again continues from its last checkpoint and ends with the same
weights, bit for bit, since the draws of a step depend on (seed, stage, step) alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Weights = dict[str, Tensor]


class OtherPlan(ValueError):
    """What a work folder holds was made with another recipe or plan."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast one stage trains; `average` is the decay of the moving average."""

    steps: int
    batch: int
    rate: float  # peak learning rate, reached after `warmup` steps, then a cosine to 5 %
    warmup: int
    average: float
    save_every: int  # steps between checkpoints

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2)


def keyed(seed: int, stage: str, step: int) -> torch.Generator:
    """Return the generator of one step of one stage."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def seeded(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """Return a module with initial weights from `seed` alone; keeps the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def write_tensors(tensors: Weights, path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name, sync it and rename it to `path`."""
    temporary = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata)
    temporary.chmod(0o644)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_tensors(path: Path, prefix: str = "") -> tuple[Weights, dict[str, str]]:
    """Read the tensors whose names start with `prefix`, which is cut off, and the metadata."""
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        return tensors, file.metadata() or {}


def fit(
    stage: str,
    model: nn.Module,
    loss: Callable[[int], Tensor],
    plan: Plan,
    folder: Path,
) -> tuple[Weights, float]:
    """Train `model` in place, from its checkpoint `folder/stage.safetensors` if there is one.

    AdamW, gradients clipped to norm 1, moving average of all weights and buffers.

    Args:
      loss: maps a step to its loss; draws all randomness from a generator keyed by the step.

    Returns:
      The averaged weights by name, and the seconds trained, all sessions together.

    Raises:
      OtherPlan: the checkpoint was made with another plan.

    Memory:
      Four times the weights, beside activations.
    """
    path = folder / f"{stage}.safetensors"
    parameters = dict(model.named_parameters())
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    first, seconds_before = 0, 0.0
    if path.exists():
        stored, metadata = read_tensors(path)
        if json.loads(metadata["plan"]) != asdict(plan):
            raise OtherPlan(
                f"{path} was made with the plan {metadata['plan']}; use another --work."
            )
        first, seconds_before = int(metadata["step"]), float(metadata["seconds"])
        model.load_state_dict({name: stored[f"model.{name}"] for name in average})
        average = {name: stored[f"average.{name}"] for name in average}
        moments = {name: (stored[f"mean.{name}"], stored[f"square.{name}"]) for name in parameters}
    optimizer = torch.optim.AdamW(parameters.values(), lr=plan.rate, weight_decay=0.01)
    for name, parameter in parameters.items():
        mean, square = moments[name]
        optimizer.state[parameter] = {
            "step": torch.tensor(float(first)),
            "exp_avg": mean,
            "exp_avg_sq": square,
        }

    start = time.perf_counter()
    recent: list[float] = []
    for step in range(first, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate_at(step)
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _follow(average, model, min(plan.average, (1 + step) / (10 + step)))
        recent.append(value.item())
        done = step + 1
        seconds = time.perf_counter() - start
        if done % plan.save_every == 0 or done == plan.steps:
            state = {f"model.{name}": value for name, value in model.state_dict().items()}
            state |= {f"average.{name}": value for name, value in average.items()}
            for name, parameter in parameters.items():
                state[f"mean.{name}"] = optimizer.state[parameter]["exp_avg"]
                state[f"square.{name}"] = optimizer.state[parameter]["exp_avg_sq"]
            metadata = {
                "step": str(done),
                "seconds": str(seconds_before + seconds),
                "plan": json.dumps(asdict(plan)),
            }
            write_tensors(state, path, metadata)
        if done % max(1, plan.save_every // 4) == 0 or done == plan.steps:
            left = seconds / (done - first) * (plan.steps - done)
            mean_loss = sum(recent) / len(recent)
            print(
                f"{stage} step {done}/{plan.steps} loss {mean_loss:.4f} "
                f"time {seconds_before + seconds:.0f} s, {left / 60:.1f} min left",
                flush=True,
            )
            recent.clear()
    return average, seconds_before + time.perf_counter() - start


def _follow(average: Weights, model: nn.Module, decay: float) -> None:
    """Move `average` towards the weights of `model`; whole numbers are copied."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
