"""The parent of a run: start the worker behind the wall, start it again smaller, pass words on.

The parent holds a few megabytes and does nothing while the worker trains. It starts the worker in
a process group of its own, so that every signal reaches it once: what the parent is sent, it sends
on. The worker tells the parent what it should know through a pipe; what it learned is in its
journal, so killing it costs nothing. Standard library only.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from edge_train.errors import INTERRUPTED, NOT_STARTED, STOPPED
from edge_train.memory.link import ENVIRONMENT, OUT_OF_MEMORY, THREAD_STACK
from edge_train.memory.wall import Group, make_group
from edge_train.units import LEAST_RUN_BYTES, format_bytes

_FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
_WORKER = ("-m", "edge_train.worker")
_KNOWN = {0, NOT_STARTED, STOPPED, INTERRUPTED, OUT_OF_MEMORY}
_CRASHED = {-signal.SIGSEGV, -signal.SIGBUS}  # so some engines end when a block was refused
_NEARLY = 0.8  # of the cap: who crashed while holding that much is taken to have run out of it
_LOADER_GAVE_UP = 127  # how glibc ends a process that has no memory for a thread's own data
_MORE = 1.2  # times a cap that proved too small where the plan had expected it to suffice
_LEAST_OF_OWN = 3  # caps below this many times the parent are refused without starting a worker


def supervise(arguments: Sequence[str], cap_bytes: int, *, host: bool = True) -> int:
    """Run `edge-train` with these arguments in a worker that cannot hold more than the cap.

    Args:
      host: the cap is about this machine's memory, not a discrete accelerator's.

    Returns:
      The exit status: the worker's, 2 or 3 when memory did not suffice in any smaller way.
    """
    own = _own_bytes()
    if host and cap_bytes < _LEAST_OF_OWN * own:
        shortage = f"two interpreters alone hold {format_bytes(2 * own)}"
        return _give_up(cap_bytes, {"shortage": shortage, "least_bytes": 0})
    waited = {*_FORWARDED, signal.SIGCHLD, signal.SIGTSTP, signal.SIGCONT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    group = make_group(cap_bytes - own) if host else None
    try:
        return _attempts(list(arguments), cap_bytes, host, group)
    finally:
        if group is not None:
            group.remove()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _attempts(arguments: list[str], cap_bytes: int, host: bool, group: Group | None) -> int:
    changes: dict[str, Any] = {}
    reason = ""
    while True:
        kills = group.kills() if group is not None else 0
        words = {
            "supervisor": os.getpid(),
            "cap_bytes": cap_bytes if host else None,
            "wall": _name(host, group),
            "changes": changes,
            "reason": reason,
            "stack": resource.getrlimit(resource.RLIMIT_STACK),
        }
        status, sent, facts = _worker(arguments, words, group)
        killed = group is not None and status == -signal.SIGKILL and group.kills() > kills
        if sent and status < 0 and not killed:
            return 128 - status
        if killed:
            facts.setdefault("shortage", "the kernel ended it at the limit of its memory group")
        elif status not in _KNOWN and "loaded" not in facts:
            # Libraries that find no memory while they load end the process in their own ways.
            facts.setdefault("shortage", "the interpreter and its libraries did not load")
        elif status in (-signal.SIGABRT, _LOADER_GAVE_UP) and facts["peak_bytes"] > cap_bytes // 2:
            facts.setdefault("shortage", "the engine gave up, as it does when memory runs out")
        elif status in _CRASHED and facts["peak_bytes"] > _NEARLY * cap_bytes:
            facts.setdefault("shortage", "the engine crashed, as some do when memory runs out")
        elif status not in _KNOWN:
            return _crashed(status, facts)
        if "shortage" not in facts:
            return status
        smaller = facts.get("smaller")
        if not facts.get("started") and "planned" not in facts:
            smaller = {}  # not even its libraries were loaded, and nothing makes those smaller
        if not smaller or smaller.items() <= changes.items():
            return _give_up(cap_bytes, facts)
        changes = {**changes, **smaller}
        reason = facts["shortage"]
        if "folder" in facts and "--resume" not in arguments:
            # The worker finds all else in the run folder; only how it talks is the command's.
            arguments = [
                "run",
                "--resume",
                facts["folder"],
                *(["--json"] * ("--json" in arguments)),
            ]


def _worker(
    arguments: Sequence[str], words: Mapping[str, Any], group: Group | None
) -> tuple[int, bool, dict[str, Any]]:
    """Run one worker; return its status (negative: a signal), whether one was sent, its facts."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    command = [
        *(group.prefix if group is not None else ()),
        *(sys.executable, *_WORKER, json.dumps({**words, "pipe": writing})),
        *arguments,
    ]
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(command, group)
    with suppress(OSError):
        os.setpgid(child, child)  # whoever of the two is first; a signal may already be waiting
    os.close(writing)
    status, sent, peak_bytes = _wait(child)
    text = b""
    while part := os.read(reading, 65_536):
        text += part
    os.close(reading)
    facts: dict[str, Any] = {"peak_bytes": peak_bytes}
    for line in text.splitlines():
        facts |= json.loads(line)
    return status, sent, facts


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
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(command[0], command, {**os.environ, **ENVIRONMENT})  # noqa: S606 - no shell
    finally:
        os._exit(NOT_STARTED)


def _wait(child: int) -> tuple[int, bool, int]:
    """Send signals on until the child is gone; return status, whether one was sent, its peak."""
    sent = False
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
        else:
            sent = sent or number in _FORWARDED
            os.killpg(child, number)


def _give_up(cap_bytes: int, facts: Mapping[str, Any]) -> int:
    """Say what did not fit and what would; return the exit status."""
    cap, shortage = format_bytes(cap_bytes), facts["shortage"]
    # what failed first is seldom the most that a run holds; what the plan expects is nearer
    needs_bytes = max(facts.get("needs_bytes", LEAST_RUN_BYTES), facts.get("least_bytes") or 0)
    needs, largest = f"plan needs {format_bytes(needs_bytes)}", facts.get("largest")
    if needs_bytes <= cap_bytes:  # then the plan was too low, and by how much nobody knows
        needs_bytes = int(_MORE * cap_bytes)
        needs, largest = f"it needs more than {cap}", None
    advice = f"Try --mem {_round_up(needs_bytes)}"
    if facts.get("started"):
        folder = facts["folder"]
        _print(
            f"out of memory under the cap of {cap} ({shortage}), also with the smallest calls; "
            f"stopped. {advice} with `edge-train run --resume {folder}`."
        )
        return STOPPED
    _print(
        f"{needs}, cap is {cap} (--mem {cap.replace(' ', '')}). "
        f"Largest: {largest or f'not known, {shortage}'}. No step was taken, and nothing smaller "
        f"is left to try. {advice}; `edge-train plan` lists every line."
    )
    return NOT_STARTED


def _crashed(status: int, facts: Mapping[str, Any]) -> int:
    how = f"ended with status {status}"
    if status < 0:
        how = f"was ended by signal {-status} ({signal.Signals(-status).name})"
        if status == -signal.SIGKILL:
            how += ", by another program or by the system when it ran out of memory"
    if facts.get("started"):
        folder = facts["folder"]
        _print(
            f"the training process {how}. Its steps are in {folder}; resume with "
            f"`edge-train run --resume {folder}`."
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
    print(f"edge-train: {text}", file=sys.stderr)
