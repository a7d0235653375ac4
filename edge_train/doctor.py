"""What this machine offers: engines, devices, ways to enforce a cap; and how to get the rest."""

import importlib.metadata
import importlib.util
import os
import platform
import sys

from edge_train import __version__
from edge_train.wall import describe

_ENGINE_OWNERS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-training",
    "onnxruntime-training-cpu",
)


def examine() -> str:
    """Return the findings, a line each."""
    machine = (
        f"edge-train {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
    return "\n".join([machine, *_torch(), *_onnxruntime(), *_cap()])


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return ["torch: not installed; `pip install edge-train[desk]` brings the torch runtime"]
    import torch

    lines = [f"torch {torch.__version__}: runtime torch, device cpu"]
    if torch.cuda.is_available():
        lines += [
            f"  cuda: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())
        ]
    for name in ("diffusers", "transformers", "optimum-quanto"):
        found = _version(name)
        lines.append(f"  {name}: {found or 'missing; `pip install edge-train[desk]`'}")
    return lines


def _onnxruntime() -> list[str]:
    owners = [name for name in _ENGINE_OWNERS if _version(name)]
    if not owners:
        return ["onnxruntime: not installed; `pip install edge-train[device]`"]
    if len(owners) > 1:
        advice = f"`pip uninstall -y {' '.join(owners)}`, then install one of them"
        return [f"onnxruntime: {' and '.join(owners)} overwrite each other's files; {advice}"]
    return [f"onnxruntime: {owners[0]} {_version(owners[0])}"]


def _cap() -> list[str]:
    if sys.platform != "linux":
        return ["memory: only the peak of one process can be measured here", *describe()]
    measured = "memory: measured from the kernel's counters of the process tree (VmHWM)"
    return [measured, *describe()]
