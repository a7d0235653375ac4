"""What there is for us here: the machine's memory and cores, or what a container leaves of them.

A container is a control group with a limit, and programs in it see the whole host in
`/proc/meminfo` and in their affinity mask. The smallest limit of the groups above this process is
what it has; the group that a run makes for its own cap is not among them. Standard library only,
since the parent of a run asks, too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edge_train.memory.groups import V1, V2, folders, is_ours, number, numbers
from edge_train.units import format_bytes

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOT = Path("/")
_MEMINFO = Path("/proc/meminfo")
# Version 1 says "none" with the largest number of whole pages that fits.
_NO_LIMIT = 2**62
_LIMITS = {
    V1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    V2: ("memory.max", "memory.high"),
}
# In `memory.stat` of version 1: also those of groups above that cannot be seen from in here.
_ABOVE = ("hierarchical_memory_limit", "hierarchical_memsw_limit")
_USED = {V1: "memory.usage_in_bytes", V2: "memory.current"}
_CACHE = {
    V1: ("total_inactive_file", "total_active_file"),
    V2: ("inactive_file", "active_file", "slab_reclaimable"),
}
# The machine is short of memory below this share of all, which is at least and at most so much.
_SHORT_SHARE, _SHORT_LEAST_BYTES, _SHORT_MOST_BYTES = 0.02, 32_000_000, 256_000_000
# Of a container's limit: the rest is for the kernel's own tables and whatever starts a run there.
_ROOM = 19, 20


class Limit:
    """How much memory one group above this process may hold.

    Not a dataclass: importing those would add two megabytes to the parent.

    Attributes:
      bytes: the limit.
      kind: of the group, `cgroup v1` or `cgroup v2`.
      folder: of the group.
    """

    __slots__ = ("bytes", "folder", "kind")

    def __init__(self, limit_bytes: int, kind: str, folder: Path) -> None:
        self.bytes, self.kind, self.folder = limit_bytes, kind, folder

    @property
    def room_bytes(self) -> int:
        """The largest cap that a run may have in it."""
        taken, whole = _ROOM
        return self.bytes * taken // whole

    def left_bytes(self) -> int | None:
        """Return what is left of it now, with all cached files taken back; None if not known."""
        used = number(self.folder / _USED[self.kind])
        if used is None:
            return None
        stat = numbers(self.folder / "memory.stat")
        cache = sum(stat.get(name, 0) for name in _CACHE[self.kind])
        return max(self.bytes - max(used - cache, 0), 0)

    def words(self) -> str:
        """Return it as a sentence without its full stop.

        >>> Limit(350_000_000, "cgroup v1", Path("/sys/fs/cgroup/memory/box")).words()
        'this container has 350 MB'
        """
        return f"this container has {format_bytes(self.bytes)}"


def memory_limits(root: Path = _ROOT) -> tuple[Limit, ...]:
    """Return the memory limits of the groups above this process, the smallest first.

    Limits that the machine's memory cannot reach, unreadable files and absurd numbers are left out.

    Args:
      root: where `proc` and the mounts begin; another one in tests.
    """
    most = _total_bytes(root / "proc/meminfo") or _NO_LIMIT
    found = []
    for kind, folder in folders("memory", root):
        if is_ours(folder):
            continue
        own = [number(folder / name) for name in _LIMITS[kind]]
        if kind == V1:
            stat = numbers(folder / "memory.stat")
            own += [stat.get(name) for name in _ABOVE]
        if smallest := min((limit for limit in own if limit and limit < most), default=0):
            found.append(Limit(smallest, kind, folder))
    return tuple(sorted(found, key=lambda limit: limit.bytes))


def memory_limit(root: Path = _ROOT) -> Limit | None:
    """Return the smallest memory limit of the groups above; None where the machine is ours."""
    return next(iter(memory_limits(root)), None)


def machine_bytes(root: Path = _ROOT) -> int | None:
    """Return the memory that there is for us, None where it is not known.

    Args:
      root: where `proc` and the mounts begin; another one in tests.
    """
    limit = memory_limit(root)
    return limit.bytes if limit is not None else _total_bytes(root / "proc/meminfo")


def machine_shortage(meminfo: Path = _MEMINFO, limits: Sequence[Limit] = ()) -> str:
    """Return that other programs left no memory here; empty where there is some.

    Args:
      limits: of the groups above; what they hold is compared, too.
    """
    for limit in limits:
        left = limit.left_bytes()
        if left is not None and left < _least_bytes(limit.bytes):
            return (
                f"this container has only {format_bytes(left)} left of its "
                f"{format_bytes(limit.bytes)} of memory"
            )
    try:
        lines = (line.partition(":") for line in meminfo.read_text().splitlines())
        found = {name: int(rest.split()[0]) * 1024 for name, _, rest in lines}
        available, total = found["MemAvailable"], found["MemTotal"]
    except (OSError, KeyError, ValueError, IndexError):
        return ""
    if available >= _least_bytes(total):
        return ""
    return f"the machine has only {format_bytes(available)} of memory left, taken by other programs"


def cores(root: Path = _ROOT) -> int:
    """Return the cores that this process may use: those it may run on, and a container's quota.

    A quota of one and a half is one core: the second of two threads would be stopped for half of
    the time, and the first would wait for it.
    """
    if hasattr(os, "sched_getaffinity"):
        here = len(os.sched_getaffinity(0))
    else:
        here = os.cpu_count() or 1
    quota = cpu_quota(root)
    return here if quota is None else max(1, min(here, int(quota)))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Return how many cores' time the groups above may use in all; None where there is no limit.

    Args:
      root: where `proc` and the mounts begin; another one in tests.
    """
    found = []
    for kind, folder in folders("cpu", root):
        if kind == V2:
            with suppress(OSError, ValueError):
                quota, period = map(int, (folder / "cpu.max").read_text().split())
                if quota > 0 and period > 0:
                    found.append(quota / period)
        else:
            used, whole = number(folder / "cpu.cfs_quota_us"), number(folder / "cpu.cfs_period_us")
            if used and whole:
                found.append(used / whole)
    return min(found, default=None)


def caps_this_machine(device: str, gpus: Path = Path("/proc/driver/nvidia/gpus")) -> bool:
    """Return whether a cap is sure to be about this machine's memory, not an accelerator's.

    Args:
      device: of the recipe.
      gpus: there where a discrete accelerator may be used.
    """
    return device == "cpu" or not gpus.is_dir()


def _least_bytes(whole: int) -> int:
    """Return what must be left of so much memory."""
    return int(min(max(_SHORT_SHARE * whole, _SHORT_LEAST_BYTES), _SHORT_MOST_BYTES))


def _total_bytes(meminfo: Path) -> int | None:
    try:
        return int(meminfo.read_text().split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
