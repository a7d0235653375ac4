"""Cases of real commands with a cap: a parent, its worker behind the wall, and the rehearsal."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from runs import HANGS_AFTER, POLL, TESTS, Ended, Task, bits_of, judged, words_for

SCRIPT = Path(__file__).with_name("walled.py")
KILLS = ("kill the tree", "kill the parent", "kill the worker")
SIGNALS = ("terminate", "interrupt", "terminate both", "suspend", "stop both")
ROLES = ("parent", "worker", "worker", "worker")  # how often an instant is of which
_STATUSES = {
    "kill the tree": {-signal.SIGKILL},
    "kill the parent": {-signal.SIGKILL},
    "kill the worker": {2, 3},
    "terminate": {130, 128 + signal.SIGTERM, -signal.SIGTERM},
    "terminate both": {130, 128 + signal.SIGTERM, -signal.SIGTERM},
    "interrupt": {130},
    "suspend": set(),
    "stop both": set(),
}


@dataclass(frozen=True)
class Capped:
    """An undisturbed run with a cap: what it learned, and how many events each role has."""

    bits: str
    events: dict[str, int]


def make_capped(task: Task, data: Path, folder: Path) -> Capped:
    """Make the run that cases with a cap are compared with.

    Raises:
      RuntimeError: it failed without any fault.
    """
    counts = folder / "counts"
    counts.mkdir(parents=True)
    plan = {"counts": str(counts), "role": "", "at": 0, "act": ""}
    ended = command(plan, _words(task, data, folder / "run"), folder)
    if ended.status != 0:
        raise RuntimeError(f"{task.name} with {task.cap}: status {ended.status}: {ended.said}")
    if "rehearsing it" not in ended.said:
        print(f"{task.name}: a cap of {task.cap} is too far here for a rehearsal", flush=True)
    events = {path.name: int(path.read_text()) for path in counts.iterdir()}
    return Capped(bits_of(task, folder / "run"), events)


def try_capped(
    task: Task, data: Path, whole: Capped, kind: str, draws: random.Random, folder: Path
) -> tuple[str, str]:
    """Return what was done to a run with a cap, and what became of it."""
    act = draws.choice(KILLS if kind == "capped-kill" else SIGNALS)
    role = draws.choice(ROLES)
    at = draws.randrange(1, whole.events[role] + 1)
    done = f"{act} at event {at} of {whole.events[role]} of the {role}"
    out, counts = folder / "run", folder / "counts"
    counts.mkdir()
    plan = {"counts": str(counts), "role": role, "at": at, "act": act}
    ended = command(plan, _words(task, data, out), folder)
    (folder / "first.txt").write_text(f"{done}: status {ended.status}\n{ended.said}")
    if wrong := _wrong(act, ended):
        return done, wrong
    if ended.status == 0:
        return done, judged(task, ended, out, whole.bits)
    again = command({"counts": ""}, _words(task, data, out), folder)
    if again.status in (2, 3):
        return done, f"NOT RESUMED: {again.said[-300:]}"
    return done, judged(task, again, out, whole.bits)


def _words(task: Task, data: Path, out: Path) -> list[str]:
    words = words_for(task, data, out)
    return words if "--resume" in words else [*words, "--mem", task.cap]


def _wrong(act: str, ended: Ended) -> str:
    """Return what is wrong with how a command ended at its fault; nothing where all is well."""
    if ended.status is None:
        return "HANG"
    if "Traceback (most recent call last)" in ended.said:
        return "TRACEBACK"
    if "ORPHAN" in ended.said:
        return "ORPHAN"
    return "" if ended.status in {0, *_STATUSES[act]} else f"STATUS {ended.status}"


def command(plan: dict[str, object], words: list[str], folder: Path) -> Ended:
    """Run a command in a session of its own to its end; what is left of it is an orphan."""
    said, temporary = folder / "said.txt", folder / "tmp"
    temporary.mkdir(exist_ok=True)
    paths = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    with said.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(plan), *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": paths},
        )
    status = _wait(process)
    left = _of_session(process.pid)
    for _ in range(HANGS_AFTER // 10):  # the kernel ends a worker soon after its parent
        if not left or status is None:
            break
        time.sleep(POLL)
        left = _of_session(process.pid)
    text = said.read_text("utf-8", "replace")
    for one in left:
        os.kill(one, signal.SIGKILL)
        text += f"ORPHAN {one}\n"
    return Ended(status, text)


def _wait(process: subprocess.Popen) -> int | None:
    """Return the status of a command, which goes on whenever it is stopped; None: it hangs."""
    for _ in range(HANGS_AFTER):
        found, status = os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)
        if found and os.WIFSTOPPED(status):
            for one in _of_session(process.pid):
                os.kill(one, signal.SIGCONT)
        elif found:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode
        time.sleep(POLL)
    for one in _of_session(process.pid):
        os.kill(one, signal.SIGKILL)
    process.wait()
    return None


def _of_session(leader: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(session) == leader and state not in "ZX":
            found.append(int(path.parent.name))
    return found
