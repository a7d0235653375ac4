"""What a training process and its supervisor tell each other. Standard library only."""

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from edge_train.memory.watch import Watch


OUT_OF_MEMORY = 75  # exit status of a worker, never of the command
THREAD_STACK = 2**20  # bytes; the default of 8 MiB a thread would be charged, touched or not
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}  # 32 MiB of work buffer a thread, for tiny products


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
    """

    def __init__(
        self,
        watch: "Watch",
        supervisor: int | None = None,
        wall: str = "none",
        changes: Mapping[str, Any] | None = None,
        reason: str = "",
        pipe: int | None = None,
        plan: Mapping[str, Any] | None = None,
        again: Callable[[Mapping[str, Any]], NoReturn] | None = None,
    ) -> None:
        self.watch, self.supervisor, self.wall = watch, supervisor, wall
        self.changes: Mapping[str, Any] = changes or {}
        self.reason, self._pipe = reason, pipe
        self.plan, self.again = plan, again

    def tell(self, **facts: Any) -> None:
        """Let the supervisor know; later facts replace earlier ones of the same name.

        `loaded`: the libraries are. `folder`: the run's. `started`: training began. `smaller`: the
        changes to make if memory does not suffice, empty at the bottom. `shortage`: what did not
        fit; `least_bytes`: what would have. `needs_bytes` and `largest`: of the plan, in words.
        `planned`: the libraries of the run are loaded and counted.
        """
        if self._pipe is not None:
            os.write(self._pipe, json.dumps(facts).encode() + b"\n")
