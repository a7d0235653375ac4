"""What this machine offers: engines, devices, ways to enforce a cap; and how to get the rest."""

import os
import platform
import sys

from edge_train import __version__
from edge_train.memory.gpu import describe as describe_gpus
from edge_train.memory.machine import cores, memory_limits
from edge_train.memory.measure import has_counters, measure
from edge_train.memory.wall import describe
from edge_train.power.energy import open_counter
from edge_train.registry import load
from edge_train.runtimes.engine import engines


def examine() -> str:
    """Return the findings, a line each."""
    machine = (
        f"edge-train {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {_cores()}"
    )
    found: list[str] = []
    for engine in engines.all().values():
        if engine.doctor is not None:
            found += load(engine.doctor)()
    broken = [f"{name}: {why}" for name, why in engines.broken().items()]
    return "\n".join([machine, *found, *broken, *_cap(), open_counter()[1]])


def _cap() -> list[str]:
    gpus = describe_gpus()
    if not has_counters():
        if sys.platform == "linux":
            measured = (
                "memory: /proc is not mounted, so no cap can be kept; mount -t proc proc /proc"
            )
        elif measure().peak_bytes:
            measured = "memory: only the peak of one process can be measured here"
        else:
            measured = "memory: cannot be measured here, so --mem is not kept"
        return [measured, *describe(), gpus]
    measured = "memory: measured from the kernel's counters of the process tree (VmHWM)"
    limits = [
        f"{limit.words()} of memory: {limit.kind}, {limit.folder}" for limit in memory_limits()[:1]
    ]
    return [*limits, measured, *describe(), gpus]


def _cores() -> str:
    """Return how many cores we may use, and of how many where that differs."""
    ours, all_of_them = cores(), os.cpu_count() or 1
    few = f"{ours} core" if ours == 1 else f"{ours} cores"
    return few if ours == all_of_them else f"{few} to use of {all_of_them}"
