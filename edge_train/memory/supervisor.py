"""The parent of a run: start the worker behind the wall, start it again smaller, pass words on.

The parent holds a few megabytes and does nothing while the worker trains. It starts the worker in
a process group of its own, so that every signal reaches it once: what the parent is sent, it sends
on. The worker tells the parent what it should know through a line of their own; what it learned is
in its journal, so killing it costs nothing. Ctrl-C and a polite kill before the first record are
answered by doing so: whatever it is busy with, that ends at once. Standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import sys
import time
from contextlib import suppress

from edge_train.errors import INTERRUPTED, NOT_STARTED, STOPPED
from edge_train.memory.ending import Ending, classify
from edge_train.memory.fresh import fresh
from edge_train.memory.handover import pair, receive
from edge_train.memory.kills import AT_OUR_LIMIT, Kills
from edge_train.memory.link import ENVIRONMENT, THREAD_STACK, Facts
from edge_train.memory.machine import memory_limit
from edge_train.memory.streams import settle_streams
from edge_train.memory.unstarted import remove_folder, remove_unstarted
from edge_train.memory.wall import Group, make_group
from edge_train.process.age import process_began
from edge_train.process.interrupts import STOPPING
from edge_train.units import (
    LEAST_NETWORK_BYTES,
    LEAST_RUN_BYTES,
    advised_bytes,
    format_bytes,
)

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from edge_train.memory.machine import Limit

_FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
_WORKER = fresh("from edge_train.worker import main, leave; leave(main(sys.argv[1], sys.argv[2:]))")
_RETRY_FACTOR = 1.2  # times a cap that proved too small where the plan had expected it to suffice
_LEAST_OF_OWN = 3  # caps below this many times the parent are refused without starting a worker


def supervise(
    arguments: Sequence[str],
    cap_bytes: int,
    *,
    host: bool = True,
    talk: Sequence[str] = (),
    planned_bytes: int | None = None,
) -> int:
    """Run `edge-train` with these arguments in a worker that cannot hold more than the cap.

    In a container the cap is at most what that can give (`machine.Limit`), so that its own limit is
    never what a run of ours meets first; the worker says so.

    Args:
      host: the cap is about this machine's memory, not a discrete accelerator's.
      talk: those of the arguments that say how it talks; kept when a worker is started again.
      planned_bytes: what a run that is gone on with was planned to need; None: nobody knows.

    Returns:
      The exit status: the worker's, 2 or 3 when memory did not suffice in any smaller way.
    """
    own = _own_bytes()
    if sys.platform == "linux" and not own:
        _print(
            "--mem needs /proc, which is not mounted here: what is held cannot be measured. "
            "`mount -t proc proc /proc`, or leave --mem out. Nothing was started."
        )
        return NOT_STARTED
    limit = memory_limit() if host else None
    if limit is not None:
        cap_bytes = min(cap_bytes, limit.room_bytes)
    if host and cap_bytes < _LEAST_OF_OWN * own:
        shortage = f"two interpreters alone hold {format_bytes(2 * own)}"
        return _give_up(arguments, cap_bytes, shortage, Facts(), limit, planned_bytes)
    waited = {*_FORWARDED, signal.SIGCHLD, signal.SIGTSTP, signal.SIGCONT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    group = make_group(cap_bytes - own) if host else None
    try:
        return _attempts(arguments, cap_bytes, host, group, talk, limit, planned_bytes)
    finally:
        if group is not None:
            group.remove()
        while signal.sigpending() & set(STOPPING):  # sent twice: the first one was answered
            signal.sigwait(STOPPING)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _attempts(
    arguments: Sequence[str],
    cap_bytes: int,
    host: bool,
    group: Group | None,
    talk: Sequence[str],
    limit: Limit | None = None,
    planned_bytes: int | None = None,
) -> int:
    """Run workers, each smaller than the one before, until one does not run out of memory."""
    changes: dict[str, Any] = {}
    reason = ""
    folder = ""  # of this run, and not of one that it goes on with
    made: Sequence[str] = ()
    began = process_began()  # of what no journal has counted yet
    lock: int | None = None  # held for all workers, so that nobody comes between two of them
    while True:
        words = {
            "supervisor": os.getpid(),
            "cap_bytes": cap_bytes if host else None,
            "wall": _name(host, group),
            "changes": changes,
            "reason": reason,
            "stack": resource.getrlimit(resource.RLIMIT_STACK),
            "lock": lock,
            "began": began,
        }
        kills = Kills(group, limit)
        status, sent, facts = _worker(arguments, words, group)
        killed = kills.since() if status == -signal.SIGKILL else ""
        ending, reason = classify(status, sent, facts, killed, cap_bytes)
        if facts.new or facts.made:
            folder, made = facts.folder, facts.made
        if facts.scratch:
            remove_folder(facts.scratch)  # a worker that was killed could not do it
        if ending is not Ending.OUT_OF_MEMORY and not facts.started:
            remove_unstarted(folder, made)  # likewise
        lock = _only(lock, facts.lock)
        began = time.monotonic() if facts.started else began
        match ending:
            case Ending.PASSED_ON:
                return status
            case Ending.INTERRUPTED:
                _print("interrupted.")
                return INTERRUPTED
            case Ending.ENDED_BY_SIGNAL:
                return 128 - status
            case Ending.CRASHED:
                return _crashed(arguments, status, facts)
            case Ending.OUT_OF_MEMORY:
                smaller = _next_smaller(facts, changes)
                if not smaller:
                    if not facts.started:
                        remove_unstarted(folder, made)
                    return _give_up(
                        arguments, cap_bytes, reason, facts, limit, planned_bytes, killed
                    )
                changes |= smaller
                if facts.folder:  # the worker finds all else there; how it talks is the command's
                    arguments = ["run", "--resume", facts.folder, *facts.code, *talk]


def _next_smaller(facts: Facts, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the next worker gives up beside `changes`; nothing where nothing is left."""
    if not (facts.started or facts.planned):
        return {}  # not even its libraries were loaded, and nothing makes those smaller
    return {} if facts.smaller.items() <= changes.items() else facts.smaller


def _only(before: int | None, now: int | None) -> int | None:
    """Return the open file that a worker handed over last, with any other one closed."""
    if now is None or before is None:
        return before if now is None else now
    os.close(before)
    return now


def _worker(
    arguments: Sequence[str], words: Mapping[str, Any], group: Group | None
) -> tuple[int, set[int], Facts]:
    """Run one worker; return its status (negative: a signal), signals sent to it, its facts."""
    line, far = pair()
    os.set_inheritable(far, True)
    if words["lock"] is not None:
        os.set_inheritable(words["lock"], True)
    command = [
        *(group.prefix if group is not None else ()),
        *(sys.executable, *_WORKER, json.dumps({**words, "pipe": far})),
        *arguments,
    ]
    settle_streams()
    child = os.fork()
    if child == 0:
        _become(command, group)
    with suppress(OSError):
        os.setpgid(child, child)  # whoever of the two is first; a signal may already be waiting
    os.close(far)
    facts = Facts()
    heard = _Hearing(line, facts)
    status, sent, facts.peak_bytes = _wait(child, heard)
    heard.all()
    os.close(line)
    return status, sent, facts


class _Hearing:
    """What a worker has told by now. Not a dataclass: those would add two megabytes."""

    def __init__(self, line: int, facts: Facts) -> None:
        self.facts, self._line, self._rest = facts, line, b""

    def all(self) -> Facts:
        """Return the facts, with what was told since somebody asked."""
        for text, files in receive(self._line):
            *whole, self._rest = (self._rest + text).split(b"\n")
            for line in filter(None, whole):
                self.facts.hear(json.loads(line))
            for file in files:
                self.facts.lock = _only(self.facts.lock, file)
        return self.facts


def _become(command: list[str], group: Group | None) -> None:
    """Turn this forked process into the worker; never returns."""
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it writes to the terminal all the same
        if group is not None:
            group.join()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_STACK)
        resource.setrlimit(resource.RLIMIT_STACK, (THREAD_STACK, hard))
        # the worker opens it when it can answer; nothing interrupts an interpreter that starts
        signal.pthread_sigmask(signal.SIG_SETMASK, STOPPING)
        os.execvpe(command[0], command, {**os.environ, **ENVIRONMENT})  # noqa: S606 - no shell
    finally:
        os._exit(NOT_STARTED)


def _wait(child: int, heard: _Hearing) -> tuple[int, set[int], int]:
    """Send signals on until the child is gone; return status, signals that were sent, its peak."""
    sent: set[int] = set()
    waited = {*_FORWARDED, signal.SIGCHLD, signal.SIGTSTP, signal.SIGCONT}
    while True:
        number = signal.sigwait(waited)
        if number == signal.SIGCHLD:
            found, status, used = os.wait4(child, os.WNOHANG)
            if found:
                unit = 1 if sys.platform == "darwin" else 1024
                return os.waitstatus_to_exitcode(status), sent, used.ru_maxrss * unit
        elif number == signal.SIGTSTP:
            os.killpg(child, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number in STOPPING and not heard.all().started:
            sent.add(number)
            os.killpg(child, signal.SIGKILL)  # nothing was learned that could be lost
        else:
            if number in _FORWARDED:
                sent.add(number)
            os.killpg(child, number)


def _give_up(
    arguments: Sequence[str],
    cap_bytes: int,
    shortage: str,
    facts: Facts,
    limit: Limit | None,
    planned_bytes: int | None = None,
    killed: str = "",
) -> int:
    """Say what did not fit and what would; return the exit status.

    Args:
      arguments: of the last worker.
      limit: of the container that this is; None outside of one.
      planned_bytes: of the run that was to go on, as it was planned before.
      killed: at which limit the kernel ended the last worker, if it did.
    """
    cap = format_bytes(cap_bytes)
    outside = killed not in ("", AT_OUR_LIMIT)
    # the first failed allocation is rarely the peak; what the plan expects is nearer
    plan_bytes = planned_bytes if facts.needs_bytes is None else facts.needs_bytes
    needs_bytes = max(plan_bytes or LEAST_RUN_BYTES, facts.least_bytes or 0)
    needs, largest = f"plan needs {format_bytes(needs_bytes)}", facts.largest
    if plan_bytes is not None and needs_bytes == plan_bytes > cap_bytes:
        needs_bytes = advised_bytes(needs_bytes)
    elif needs_bytes <= cap_bytes:  # then the plan was too low, and by how much nobody knows
        needs_bytes = int(_RETRY_FACTOR * cap_bytes)
        needs, largest = f"it needs more than {cap}", ""
    advice = _advice(needs_bytes, limit, outside)
    if plan_bytes is None and cap_bytes < LEAST_NETWORK_BYTES:  # not even the task is known
        advice += f" ({_round_up(LEAST_NETWORK_BYTES)} for a small network, --task network)"
    if facts.started:
        _print(
            f"out of memory under the cap of {cap} ({shortage}), also with the smallest calls; "
            f"stopped. {advice} with `{_going_on(arguments, facts)}`."
        )
        return STOPPED
    if outside:
        _print(f"{killed}, before the first step; the cap of {cap} was not reached. {advice}.")
        return NOT_STARTED
    engine = "" if facts.needs_bytes is None else " on this engine"
    if facts.instead:
        advice = f"Try {facts.instead}, or on this one {advice[0].lower()}{advice[1:]}"
    whose = f"--mem {cap.replace(' ', '')}"
    if limit is not None and cap_bytes == limit.room_bytes:
        whose = f"{limit.words()}, and a run may hold nineteen twentieths"
    _print(
        f"{needs}, cap is {cap} ({whose}). "
        f"Largest: {largest or f'not known, {shortage}'}. No step was taken, and nothing smaller "
        f"is left to try{engine}. {advice}; `edge-train plan --all` lists every line."
    )
    return NOT_STARTED


def _advice(needs_bytes: int, limit: Limit | None, outside: bool) -> str:
    """Return what to do: never a cap that there is no memory for.

    Args:
      outside: the cap was not what a worker was ended at.
    """
    if limit is not None and needs_bytes > limit.room_bytes:
        whole_bytes = needs_bytes * limit.bytes // limit.room_bytes
        return (
            f"This container has {format_bytes(limit.bytes)}; start it with "
            f"{_round_up(whole_bytes)} of memory or more, and --mem {_round_up(needs_bytes)}"
        )
    if not outside:
        return f"Try --mem {_round_up(needs_bytes)}"
    if limit is None:
        return "Stop other programs on this machine, and go on"
    return (
        f"This container has {format_bytes(limit.bytes)}; stop other programs in it or start it "
        "with more memory, and go on"
    )


def _going_on(arguments: Sequence[str], facts: Facts) -> str:
    """Return the command that goes on with a run that has begun, without its cap.

    A run that is to be made longer has not told its folder before it is: then what was typed
    still has to be said.

    Args:
      arguments: of its last worker.
    """
    if facts.folder:
        return shlex.join(["edge-train", "run", "--resume", facts.folder, *facts.code])
    words: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == "--mem":
            del left[:1]
        elif not word.startswith("--mem="):
            words.append(word)
    return shlex.join(["edge-train", *words])


def _crashed(arguments: Sequence[str], status: int, facts: Facts) -> int:
    how = f"ended with status {status}"
    if status < 0:
        how = f"was ended by signal {-status} ({signal.Signals(-status).name})"
        if status == -signal.SIGKILL:
            how += ", by another program or by the system when it ran out of memory"
    if facts.started:
        _print(
            f"the training process {how}. Its steps are kept; go on with "
            f"`{_going_on(arguments, facts)}`."
        )
        return STOPPED
    _print(f"the training process {how}, before the first step. Nothing was trained.")
    return NOT_STARTED


def _name(host: bool, group: Group | None) -> str:
    if not host:
        return "none: the cap is about the accelerator's memory"
    found = [group.kind] if group is not None else []
    if sys.platform == "linux":
        found.insert(0, "data limit")
    return " and ".join(found) or "none"


def _round_up(count: int) -> str:
    """Return a size to type that is a little more than `count`.

    >>> _round_up(151_200_000)
    '160MB'
    """
    return f"{-(-count // 10_000_000) * 10}MB"


def _own_bytes() -> int:
    """Return the resident bytes of this process."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _print(text: str) -> None:
    with suppress(OSError):
        print(f"edge-train: {text}", file=sys.stderr)
