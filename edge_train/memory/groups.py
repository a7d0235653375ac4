"""The control groups that this process is in, as folders; the nearest first. Standard library only.

Version 2 of the kernel's control groups is one tree, version 1 a tree for each controller, and a
machine may have both. `/proc/self/cgroup` names our group as the host sees it. In a container that
path may not exist, since its mount begins at the container's own group; what exists is read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Iterator

V1, V2 = "cgroup v1", "cgroup v2"
OURS = "edge-train-"  # then the process id of the parent of a run: a group that we made


def folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[str, Path]]:
    """Yield (kind, folder) of every group above this process that has a controller.

    Of version 2 every group is there, whatever its controllers: a limit that is set nowhere is a
    file that does not exist.

    Args:
      controller: `memory` or `cpu`.
      root: where `proc` and the mounts begin; another one in tests.
    """
    try:
        mounts = (root / "proc/mounts").read_text(errors="replace").splitlines()
        memberships = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return
    own = {V2: "/"}
    for line in memberships:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            own[V2] = path
        elif controller in controllers.split(","):
            own[V1] = path
    for kind, type_name in ((V2, "cgroup2"), (V1, "cgroup")):
        for line in mounts:
            _, place, found, options, *_ = (*line.split(), "", "", "", "")
            if found != type_name or kind not in own:
                continue
            if kind == V1 and controller not in options.split(","):
                continue
            # outside of our namespace ("/../other") nothing can be seen but the mount itself
            parts = Path(own[kind].lstrip("/"))
            if ".." in parts.parts:
                parts = Path()
            for relative in (parts, *parts.parents):
                if (base := root / place.lstrip("/") / relative).is_dir():
                    yield kind, base


def is_ours(folder: Path) -> bool:
    """Return whether the run that this process belongs to made a group, for its own cap."""
    name = folder.name.removesuffix(".scope")
    return name in (f"{OURS}{os.getpid()}", f"{OURS}{os.getppid()}")


def number(path: Path) -> int | None:
    """Return the number in a file of a group; None where there is none, or none that can be read.

    No limit (`max`, -1) is no number, and nor is one below one: nothing could run in such a group.
    """
    with suppress(OSError, ValueError):
        if (found := int(path.read_text())) > 0:
            return found
    return None


def numbers(path: Path) -> dict[str, int]:
    """Return the lines `name number` of a file of a group; nothing where it cannot be read."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            name, _, value = line.partition(" ")
            if value.strip().isdigit():
                found[name] = int(value)
    return found
