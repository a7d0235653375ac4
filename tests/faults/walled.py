"""The `edge-train` command with a fault planted in it or in its worker: `walled.py PLAN run ...`.

PLAN is JSON: `counts`, a folder in which the parent and the workers each count their events;
`role`, in which of the two the fault comes; `at`, before which event; `act`, a name of `ACTS`. An
event is a module that is asked for, or a change of a file: so instants are spread from the first
line of Python to the end, by progress and by no clock.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

from planted import Writes


class Events:
    """Counts the events of a role over all of its processes, and acts before one of them."""

    def __init__(self, file: Path, at: int | None, act) -> None:
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._count, self._at, self._act = int(os.pread(self._file, 20, 0) or 0), at, act
        self._process = os.getpid()

    def step(self) -> None:
        if os.getpid() != self._process:  # a reader that was forked, and is neither of the two
            return
        self._count += 1
        os.pwrite(self._file, b"%d" % self._count, 0)
        if self._count == self._at:
            self._act()

    def find_spec(self, *_):
        """Count a module that is asked for; others find it."""
        self.step()

    def plant(self) -> None:
        """Count from here on."""
        writes = Writes(lambda _: self.step())
        act = self._act

        def torn() -> None:
            if writes.half is not None:
                writes.half()
            act()

        self._act = torn
        writes.plant()
        sys.meta_path.insert(0, self)


def children() -> list[int]:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return [int(word) for word in path.read_text().split()]


def send(to: tuple[str, ...], number: int, role: str) -> None:
    """Send a signal to the parent, the workers or both; to this process last."""
    own, other = ("parent", "worker") if role == "parent" else ("worker", "parent")
    if other in to:
        for process in children() if role == "parent" else [os.getppid()]:
            os.kill(process, number)
    if own in to:
        os.kill(os.getpid(), number)


BOTH = ("parent", "worker")
ACTS = {
    "kill the tree": (BOTH, signal.SIGKILL),
    "kill the parent": (("parent",), signal.SIGKILL),
    "kill the worker": (("worker",), signal.SIGKILL),
    "terminate": (("parent",), signal.SIGTERM),
    "terminate both": (BOTH, signal.SIGTERM),
    "interrupt": (("parent",), signal.SIGINT),
    "suspend": (("parent",), signal.SIGTSTP),
    "stop both": (BOTH, signal.SIGSTOP),
}


def main() -> None:
    """Be the parent, or the worker that it starts."""
    plan, first, *rest = sys.argv[1:]
    wanted = json.loads(plan)
    role = "worker" if first.startswith("{") else "parent"
    if wanted["counts"]:
        to, number = ACTS[wanted["act"]] if wanted["act"] else ((), 0)
        at = wanted["at"] if role == wanted["role"] else None
        events = Events(Path(wanted["counts"], role), at, lambda: send(to, number, role))
        events.plant()
    sys.argv[1:] = [first, *rest]
    if role == "worker":
        from edge_train.worker import main as worker

        sys.exit(worker(first, rest))
    execute = os.execvpe

    def become(file, command, environment):
        at = command.index("-c")
        execute(file, [*command[:at], __file__, plan, *command[at + 2 :]], environment)

    os.execvpe = become
    runpy.run_module("edge_train", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
