"""The operating system's own limits on a worker: what is charged where, and what can be had here.

Two walls stand behind the cap, the second one where the system lets us build it:

- `RLIMIT_DATA` (Linux) bounds the private writable memory of a process: heap, anonymous and
  written private file pages, thread stacks, written parts of libraries. An allocation past it
  fails inside the worker, as an error that can be caught. It counts addresses, touched or not,
  and it counts neither shared libraries' code nor weights that are mapped read-only: those are
  measured and taken off the limit while the worker runs (`watch.py`).
- A memory cgroup bounds what the kernel charges to a group of processes, children and page cache
  included. Cached file pages are taken back first, so mapped weights never kill the run; only
  when nothing is left to take back does the kernel end the worker. Swap is closed in it.

The worker is in the group, the supervising parent is not: its bytes are taken off beforehand.
Standard library only, since the parent imports it.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from edge_train.memory.child import in_child
from edge_train.memory.groups import OURS, V1, V2, folders, number, numbers

with suppress(ImportError):  # on Windows, where nothing below is done
    import resource

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Run = Callable[[Sequence[str]], tuple[int, str]]

WALL_NONE = (
    "wall: none on this system (Linux alone charges memory to a data limit); --mem is held by the "
    "guard, which looks after every step and stops the run: a step can go past the cap"
)
_V1_LIMITS = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
_V1_REACHED = ("memory.failcnt", "memory.memsw.failcnt")
_ANSWER_SECONDS = 10  # that the system's service manager may take
_REMOVAL_SECONDS = 2.0  # a group can be removed only when its last process is reaped


def limit_data(limit_bytes: int) -> bool:
    """Set how much private writable memory this process may map; return whether that worked.

    What is mapped already stays. Only Linux charges anonymous memory to this limit.
    """
    if sys.platform != "linux":
        return False
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit_bytes = min(limit_bytes, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (max(limit_bytes, 0), hard))
        return True
    return False


class Group:
    """A memory cgroup made for one run; `join` is called in the worker before it starts.

    Not a dataclass: importing those would add two megabytes to the parent.

    Attributes:
      kind: `cgroup v2`, `cgroup v1` or `systemd scope`, for the record.
      folder: of a cgroup; None for a scope.
      prefix: words before the worker's command line that put it in the scope.
      unit: the scope's name.
    """

    def __init__(
        self,
        kind: str,
        folder: Path | None = None,
        prefix: tuple[str, ...] = (),
        unit: str = "",
    ) -> None:
        self.kind, self.folder, self.prefix, self.unit = kind, folder, prefix, unit

    def join(self) -> None:
        """Move this process into the group."""
        if self.folder is not None:
            (self.folder / "cgroup.procs").write_text("0")

    def kills(self, run: Run | None = None) -> int:
        """Return how many processes the kernel has ended in it for want of memory."""
        if self.folder is None:
            show = [*self._control(), "show", "--property=Result", "--value", self.unit]
            status, text = (run or _run)(show)
            return int(status == 0 and text.strip() == "oom-kill")
        found = (numbers(self.folder / name) for name in ("memory.events", "memory.oom_control"))
        return sum(counts.get("oom_kill", 0) for counts in found)

    def reached(self) -> int | None:
        """Return how often its own limit was reached; None where nobody counts that.

        A kill is counted where the victim was, also one for the sake of a group above.
        """
        if self.folder is None:
            return None
        for name in ("memory.events.local", "memory.events"):
            if counts := numbers(self.folder / name):
                return counts.get("oom", 0)
        counted = [number(self.folder / name) for name in _V1_REACHED]
        return sum(count or 0 for count in counted)

    def remove(self, run: Run | None = None) -> None:
        """Remove the group; its processes are gone, or about to be."""
        if self.folder is None:
            (run or _run)([*self._control(), "reset-failed", self.unit])
            return
        until = time.monotonic() + _REMOVAL_SECONDS
        while self.folder.is_dir() and time.monotonic() < until:
            with suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.01)

    def _control(self) -> tuple[str, ...]:
        return ("systemctl", "--user") if "--user" in self.prefix else ("systemctl",)


def make_group(
    limit_bytes: int, *, prefix: str = OURS, root: Path = Path("/"), run: Run | None = None
) -> Group | None:
    """Return a memory cgroup with a limit and no swap, or None where none can be had.

    Tried in this order: a folder of a cgroup v2 tree that may be written, the same for v1, a
    scope from systemd. Folders left over by processes that were killed are removed on the way.

    Args:
      prefix: of the group's name, before our process number; by default that of a run's own group,
        which `groups.is_ours` knows.
      root: where `proc` and the mounts begin; another one in tests.
      run: runs a command, returns status and output; another one in tests.
    """
    for kind, base in _bases(root):
        _sweep(base, prefix)
        folder = base / f"{prefix}{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        if _limit(folder, kind, limit_bytes):
            return Group(kind, folder)
        with suppress(OSError):
            folder.rmdir()
    return _scope(limit_bytes, run or _run)


def describe(*, root: Path = Path("/"), run: Run | None = None) -> list[str]:
    """Return what stands behind the cap on this machine, a line each, by trying it."""
    if sys.platform != "linux":
        return [WALL_NONE]
    lines = ["wall: RLIMIT_DATA on the worker (allocations past the cap fail and are caught)"]
    group = make_group(2**40, root=root, run=run)
    if group is None:
        lines.append("  memory cgroup: none that this user may make; not needed for the above")
    else:
        lines.append(f"  memory cgroup: {group.kind}")
        group.remove(run)
    return lines


def _bases(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (kind, folder in which a memory group may be made), nearest to this process first."""
    for kind, base in folders("memory", root):
        if _offers_memory(base, kind) and os.access(base, os.W_OK):
            yield kind, base


def _offers_memory(base: Path, kind: str) -> bool:
    """Return whether groups made in `base` have a memory limit."""
    if kind == V1:
        return (base / _V1_LIMITS[0]).exists()
    with suppress(OSError):
        return "memory" in (base / "cgroup.subtree_control").read_text().split()
    return False


def _limit(folder: Path, kind: str, limit_bytes: int) -> bool:
    """Write the limit of a fresh group, swap included; return whether it holds."""
    try:
        if kind == V2:
            (folder / "memory.max").write_text(str(limit_bytes))
            if (folder / "memory.swap.max").exists():
                (folder / "memory.swap.max").write_text("0")
        else:
            for name in _V1_LIMITS:
                if name == _V1_LIMITS[0] or (folder / name).exists():
                    (folder / name).write_text(str(limit_bytes))
            if not (folder / _V1_LIMITS[1]).exists() and (folder / "memory.swappiness").exists():
                (folder / "memory.swappiness").write_text("0")
        # Moving there is a right of its own: try it with a process that costs nothing.
        return _can_join(folder)
    except OSError:
        return False


def _can_join(folder: Path) -> bool:
    status, _ = in_child(lambda: (folder / "cgroup.procs").write_text("0"))
    return status == 0


def _sweep(base: Path, prefix: str) -> None:
    """Remove the empty groups whose maker is gone, and those of runs in them."""
    with suppress(OSError):
        for left in base.glob(f"{prefix}[0-9]*"):
            owner = left.name.removeprefix(prefix)
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                if prefix != OURS:
                    _sweep(left, OURS)
                with suppress(OSError):
                    left.rmdir()


def _scope(limit_bytes: int, run: Run) -> Group | None:
    """Return a scope of systemd's, where its bus answers."""
    manager = () if os.geteuid() == 0 else ("--user",)
    limits = ("-p", f"MemoryMax={limit_bytes}", "-p", "MemorySwapMax=0")
    unit = f"{OURS}{os.getpid()}.scope"
    start = ("systemd-run", *manager, "--scope", "--quiet", *limits)
    status, _ = run([*start, "--collect", "true"])
    if status != 0:
        return None
    return Group("systemd scope", None, (*start, f"--unit={unit}", "--"), unit)


def _run(words: Sequence[str]) -> tuple[int, str]:
    return in_child(lambda: os.execvp(words[0], [*words]), _ANSWER_SECONDS)  # noqa: S606 - no shell
