"""Which limit a worker was killed at: its own, a container's or the machine's. For the parent only.

The kernel counts a kill where its victim was, whoever was out of memory. Which limit was reached is
another count, kept by the group whose limit it is: `oom` of `memory.events.local` (version 2),
`memory.failcnt` (version 1). Ours did not rise: then somebody above us ended the worker.
"""

from __future__ import annotations

from pathlib import Path

from edge_train.memory.groups import folders, is_ours, numbers
from edge_train.units import format_bytes

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from edge_train.memory.machine import Limit
    from edge_train.memory.wall import Group

AT_OUR_LIMIT = "the kernel ended it at the limit of its memory group"
_MACHINE = "the kernel ended it because this machine ran out of memory"


class Kills:
    """Counts of kills in our group and in those above it, at one instant.

    Not a dataclass: importing those would add two megabytes to the parent.
    """

    def __init__(self, group: Group | None, limit: Limit | None, root: Path = Path("/")) -> None:
        self._group, self._limit, self._root = group, limit, root
        self._killed, self._reached = self._count()

    def since(self) -> str:
        """Return at which limit the kernel ended a process since then; empty if it ended none."""
        killed, reached = self._count()
        if killed <= self._killed:
            return ""
        if self._group is not None and (reached is None or reached > (self._reached or 0)):
            return AT_OUR_LIMIT
        if self._limit is None:
            return _MACHINE
        size = format_bytes(self._limit.bytes)
        return f"the kernel ended it at the limit of this container, {size} ({self._limit.folder})"

    def _count(self) -> tuple[int, int | None]:
        """Return kills of processes where a worker is, and how often our own limit was reached."""
        if self._group is not None:
            return self._group.kills(), self._group.reached()
        return kills_here(self._root), None


def kills_here(root: Path = Path("/")) -> int:
    """Return how many processes the kernel ended in the groups that this process is in.

    Of each tree the nearest group counts: of version 2 it includes those below it.
    """
    nearest: dict[str, int] = {}
    for kind, folder in folders("memory", root):
        if kind not in nearest and not is_ours(folder):
            for name in ("memory.events", "memory.oom_control"):
                nearest[kind] = nearest.get(kind, 0) + numbers(folder / name).get("oom_kill", 0)
    return sum(nearest.values())
