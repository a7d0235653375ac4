"""What this machine offers: engines, devices, ways to enforce a cap; and how to get the rest."""

import importlib.metadata
import importlib.util
import os
import platform
import sys

from edge_train import __version__
from edge_train.errors import InputError
from edge_train.memory.gpu import describe as describe_gpus
from edge_train.memory.wall import describe
from edge_train.runtimes.onnx.engine import installed_engine, pick_provider


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
    try:
        engine, devices = installed_engine()
    except InputError as error:
        return [f"onnxruntime: {error}"]
    flavor = "training flavor, " if "training" in engine else ""
    auto = pick_provider("auto", "none")
    return [
        f"{engine}: {flavor}runtime onnx, devices {', '.join(devices)}",
        f"  auto is {auto.device}: {auto.reason}",
    ]


def _cap() -> list[str]:
    gpus = describe_gpus()
    if sys.platform != "linux":
        return ["memory: only the peak of one process can be measured here", *describe(), gpus]
    measured = "memory: measured from the kernel's counters of the process tree (VmHWM)"
    return [measured, *describe(), gpus]
