"""Read damaged files in a forked child: observed, with bounded memory and time."""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_train.errors import EdgeTrainError

PROCESSOR_SECONDS = 10.0  # of one case; what takes more hangs
WALL_SECONDS = 60.0  # of one case: a pipe is waited for without any processor time
ROOM_BYTES = 1 << 30  # above what the parent holds; the largest sample has 200 kB
_LONGEST = 1500  # characters of a message
_IN_OPEN, _IN_CREATE, _IN_MODIFY, _IN_NONBLOCK = 0x20, 0x100, 0x2, 0x800
_EVENT = struct.Struct("iIII")
# What no reader of files does, by the names of Python's audit events.
_NEVER = ("subprocess.Popen", "os.system", "os.exec", "socket.connect", "pickle.find_class")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")

READ, REFUSED = "read", "one sentence"
Case = tuple[str, Callable[[], None]]  # what was done to an input, and what reads it


@dataclass(frozen=True)
class Ended:
    """What was done in a case, its outcome (in capitals where it failed), what was said."""

    number: int
    done: str
    outcome: str
    said: str

    @property
    def failed(self) -> bool:
        """Whether this must not happen."""
        return self.outcome not in (READ, REFUSED)


@dataclass(frozen=True)
class Places:
    """Where a case happens: what was named, what lies outside, where a reader may write."""

    root: Path

    @property
    def named(self) -> Path:
        """The folder that the user named, or that of the file."""
        return self.root / "named"

    @property
    def outside(self) -> Path:
        """A folder that nobody named, beside it."""
        return self.root / "outside"

    @property
    def work(self) -> Path:
        """Where a reader may write."""
        return self.root / "work"


def limit_memory() -> None:
    """Let this process, and what it forks, allocate `ROOM_BYTES` more than it holds now.

    A job needs it as its children do: it makes the input of a case that failed once more.
    """
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM_BYTES, most))


def watched(numbers: Sequence[int], case: Callable[[int], Case], places: Places) -> Iterator[Ended]:
    """Yield what becomes of cases, each in a child that several share until one kills it.

    Args:
      case: prepares the case of a number, unobserved.
    """
    waiting = list(numbers)
    while waiting:
        begun, found = None, 0
        for line in _of_child(waiting, case, places):
            if isinstance(line, int) and begun is not None:  # the child ended in it
                found += 1
                yield Ended(*begun, _killed(line), "")
            elif isinstance(line, dict) and "begun" in line:
                begun = line["begun"]
            elif isinstance(line, dict):
                found += 1
                yield Ended(*begun, line["outcome"], line["said"])
                begun = None
        if not found:
            raise RuntimeError("a child of the attacks ended before its first case")
        waiting = waiting[found:]


def _killed(number: int) -> str:
    if number in (signal.SIGPROF, signal.SIGALRM):
        return "HANG"
    return f"CRASH {signal.Signals(number).name}" if number else "EXIT"


def _of_child(
    numbers: Sequence[int], case: Callable[[int], Case], places: Places
) -> Iterator[dict | int]:
    """Yield the lines of a child, then the number of the signal that ended it, 0 without one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.close(reading)
            _work(numbers, case, places, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    yield max(-status, 0)


def _work(numbers: Sequence[int], case: Callable[[int], Case], places: Places, pipe: int) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # decoders of pictures complain there on their own
        os.dup2(quiet, stream)
    seen = _observe(places)
    outside = _Outside(places.outside)
    limit_memory()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        done, read = case(number)
        _write(pipe, {"begun": [number, done]})
        outside.opened()
        seen.clear()
        seen.append("")  # observed from here on
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        outcome, said = _tried(read)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        beyond = [*seen[1:], *(f"open {name}" for name in outside.opened())]
        seen.clear()
        if beyond:
            outcome, said = "OUTSIDE", f"{beyond[0]}; {said}"
        _write(pipe, {"outcome": outcome, "said": said})


def _tried(read: Callable[[], None]) -> tuple[str, str]:
    """Return what became of reading, and what was said."""
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                read()
            finally:
                if warned:  # a user would see them, between other lines
                    raise warned[0].message
    except EdgeTrainError as error:
        return _judged(str(error))
    except Warning as error:
        return f"WARNING {type(error).__name__}", _traced(error)
    except MemoryError as error:
        return "MEMORY", _traced(error)
    except BaseException as error:  # noqa: BLE001 - it is what is looked for
        return f"TRACEBACK {type(error).__name__}", _traced(error)
    return READ, ""


def _judged(message: str) -> tuple[str, str]:
    shown = message[:_LONGEST].encode("utf-8", "backslashreplace").decode()
    lines = message.split("\n")
    if not message.strip() or len(message) > _LONGEST:
        return "MESSAGE TOO LONG", f"{len(message)} characters: {shown[:300]}"
    if not all(line.isprintable() for line in lines):
        return "MESSAGE UNPRINTABLE", shown[:500]
    return REFUSED, shown


def _traced(error: BaseException) -> str:
    frames, at = [], error.__traceback__
    while at is not None:
        name = Path(at.tb_frame.f_code.co_filename)
        frames.append(f"{name.parent.name}/{name.name}:{at.tb_lineno}")
        at = at.tb_next
    said = str(error)[:300].encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}: {said} at {' '.join(frames[-4:])}"


def _write(pipe: int, content: dict) -> None:
    os.write(pipe, json.dumps(content).encode() + b"\n")


def _observe(places: Places) -> list[str]:
    """Return a list that gets what Python does beyond reading, while it is not empty."""
    seen: list[str] = []
    work, root = str(places.work), str(places.root)

    def hook(event: str, arguments: tuple) -> None:
        if not seen:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR) and not os.fsdecode(path).startswith(work):
                seen.append(f"write {os.fsdecode(path)}")
            elif os.fsdecode(path).startswith("/dev/") and not os.fsdecode(path).startswith(root):
                seen.append(f"open {os.fsdecode(path)}")
        elif event in _NEVER:
            seen.append(event)
        elif event in _CHANGES and not os.fsdecode(arguments[0]).startswith(work):
            seen.append(f"{event} {os.fsdecode(arguments[0])}")

    sys.addaudithook(hook)
    return seen


class _Outside:
    """Tells what is opened in a folder by anybody, also by libraries that Python does not see."""

    def __init__(self, folder: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._file = library.inotify_init1(_IN_NONBLOCK)
        asked = _IN_OPEN | _IN_CREATE | _IN_MODIFY
        if library.inotify_add_watch(self._file, os.fsencode(folder), asked) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def opened(self) -> list[str]:
        """Return the names that were opened, made or changed since this was asked last."""
        try:
            content = os.read(self._file, 1 << 16)
        except BlockingIOError:
            return []
        names, at = [], 0
        while at < len(content):
            _, _, _, size = _EVENT.unpack_from(content, at)
            at += _EVENT.size
            names.append(content[at : at + size].rstrip(b"\0").decode("utf-8", "replace"))
            at += size
        return names
