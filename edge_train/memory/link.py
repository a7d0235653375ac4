"""What a training process and its supervisor tell each other. Standard library only."""

from __future__ import annotations

import json
import os
from contextlib import suppress

with suppress(ImportError):  # on Windows, where nobody supervises
    from edge_train.memory.handover import hand_over

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from edge_train.memory.watch import Watch


OUT_OF_MEMORY = 75  # exit status of a worker, never of the command
ENDED_AT_ONCE = 76  # likewise: it was told to, and had nothing to save
THREAD_STACK = 2**20  # bytes; the default of 8 MiB a thread would be charged, touched or not
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}  # 32 MiB of work buffer a thread, for tiny products


class Facts:
    """What a supervisor knows of a worker: told through the pipe, later facts over earlier ones.

    Not a dataclass: importing those would add two megabytes to the parent.

    Attributes:
      peak_bytes: the most that was resident, from the kernel and not told.
      loaded: the libraries are; what goes wrong from here on is not their loading.
      failed: an error of its own ends it, which is no want of memory.
      folder: of the run; empty before there is one.
      code: words that name the code of a run beside `--resume`: a folder is not believed there.
      new: that folder is of a new run, and goes away if no step is taken.
      made: folders that were, or are about to be, made for it, the innermost first.
      scratch: the folder of a rehearsal.
      planned: the libraries of the run are loaded and counted.
      started: training began.
      smaller: the changes to make if memory does not suffice; empty at the bottom.
      shortage: what did not fit, as part of a sentence; empty where everything did.
      least_bytes: the smallest cap that could have been enough; None where nobody can tell.
      needs_bytes: what the plan needs; None before there is one.
      largest: the largest lines of the plan, in words.
      instead: what to type to have the same on an engine that has room, if there is one.
      lock: an open file that it handed over; the other one that nobody tells.
    """

    __slots__ = (
        "code",
        "failed",
        "folder",
        "instead",
        "largest",
        "least_bytes",
        "loaded",
        "lock",
        "made",
        "needs_bytes",
        "new",
        "peak_bytes",
        "planned",
        "scratch",
        "shortage",
        "smaller",
        "started",
    )

    def __init__(self, peak_bytes: int = 0, **told: Any) -> None:
        self.peak_bytes = peak_bytes
        self.loaded = self.failed = self.planned = self.started = self.new = False
        self.folder = self.shortage = self.largest = self.scratch = self.instead = ""
        self.made: Sequence[str] = ()
        self.code: Sequence[str] = ()
        self.smaller: Mapping[str, Any] = {}
        self.least_bytes: int | None = None
        self.needs_bytes: int | None = None
        self.lock: int | None = None
        self.hear(told)

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take what was told over what was known.

        Raises:
          AttributeError: there is no such fact.
        """
        for name, value in told.items():
            setattr(self, name, value)


class Link:
    """What a training process has from its supervisor; one that has none makes an empty link.

    Not a dataclass: importing those would add two megabytes to the parent.

    Attributes:
      watch: measures memory since the process began.
      supervisor: process id of the parent, part of the tree that is measured.
      wall: what the system enforces, for the record.
      changes: recipe keys that earlier attempts were made smaller by.
      reason: why there was an earlier attempt; empty for the first.
      plan: what a rehearsal in this process, before it became a fresh one, has measured.
      again: makes this process a fresh one that has such a plan; None where it cannot.
      lock: an open file that an earlier process of this run has locked; None for the first.
      began: by the monotonic clock, when the command was typed, or its last worker was started
        that goes on with a journal; None where nobody supervises.
      page: process id of the page that `--watch` offers, part of the tree; None without one.
    """

    def __init__(
        self,
        watch: Watch,
        supervisor: int | None = None,
        wall: str = "none",
        changes: Mapping[str, Any] | None = None,
        reason: str = "",
        pipe: int | None = None,
        plan: Mapping[str, Any] | None = None,
        again: Callable[[Mapping[str, Any]], NoReturn] | None = None,
        lock: int | None = None,
    ) -> None:
        self.watch, self.supervisor, self.wall = watch, supervisor, wall
        self.changes: Mapping[str, Any] = changes or {}
        self.reason, self._pipe = reason, pipe
        self.plan, self.again, self.lock = plan, again, lock
        self.began: float | None = None
        self.page: int | None = None

    def tell(self, **facts: Any) -> None:
        """Let the supervisor know `Facts`; later ones replace earlier ones of the same name."""
        if self._pipe is not None:
            os.write(self._pipe, json.dumps(facts).encode() + b"\n")

    def lend(self, lock: int) -> None:
        """Let the supervisor hold an open file too, and whoever goes on with this run."""
        self.lock = lock
        if self._pipe is not None:
            hand_over(self._pipe, lock)
