"""What `edge-train` does first: what has a cap begins in a worker, all else in this process.

This process stays as long as the run and its bytes count, so it knows five words of a recipe and
those about talking, and imports a megabyte or two. All other words are read by `cli.py`, in the
worker or, where there is no cap or no fork, in this process.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from edge_train.errors import NOT_STARTED, UNREAD, EdgeTrainError, InputError
from edge_train.memory.child import in_child
from edge_train.memory.machine import caps_this_machine
from edge_train.memory.streams import is_unread, open_streams, settle_streams
from edge_train.paths import check_path
from edge_train.process.age import process_began
from edge_train.units import parse_bytes

try:
    from edge_train.memory.supervisor import supervise
except ImportError:  # Windows has no limits: the run begins here, with the guard alone
    HAS_WORKERS = False
else:
    HAS_WORKERS = hasattr(os, "fork")

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Flags that say what a run may hold or where that is written, hyphens for underscores.
_WORDS = {
    "--mem": "mem",
    "--host-mem": "host_mem",
    "--device": "device",
    "--recipe": "recipe",
    "--resume": "resume",
    "--resume-from-checkpoint": "resume",
}
# Flags about how a command talks, and whether a value follows: a run that is started again in a
# smaller way finds all else in its folder. One line for each.
TALKING = {
    "--json": False,
    "--watch": False,
    "--report-to": True,
    "--fleet": True,
}
_MEM = ("mem", "cap_bytes")  # both spellings of a recipe file
_HOST_MEM = ("host_mem", "host_cap_bytes")
_WRITTEN = (*_MEM, *_HOST_MEM, "device")
SUPERVISED = ("run", "audit")  # verbs whose cap is held from outside
_GPUS = Path("/proc/driver/nvidia/gpus")  # there where a discrete accelerator may be used


def main() -> int:
    """Run the command that was typed; return its exit status (see CONTRACT: 0, 2, 3, 130 or 141).

    A run goes on when nobody can read what it says; any other command has failed then, without a
    word where it was read up to there and no further (`| head -1`).
    """
    open_streams()
    status = _run(sys.argv[1:])
    is_run = sys.argv[1:2] == ["run"]
    unread = is_unread()
    if not settle_streams() and status == 0 and not is_run:
        if unread:
            return UNREAD
        _say("standard output cannot be written; write it to another place.")
        return NOT_STARTED
    return status


def _run(arguments: list[str]) -> int:
    try:
        if arguments[:1] and arguments[0] in SUPERVISED and HAS_WORKERS:
            said, talk = read_words(arguments[1:])
            cap_bytes, host = find_cap(said)
            if cap_bytes is not None:
                planned_bytes = find_plan(said)
                return supervise(
                    arguments, cap_bytes, host=host, talk=talk, planned_bytes=planned_bytes
                )
    except EdgeTrainError as error:
        _say(str(error))
        return error.exit_status
    from edge_train import cli

    return cli.main(arguments, began=process_began())


def _say(text: str) -> None:
    with suppress(OSError):
        print(f"edge-train: {text}", file=sys.stderr)


def read_words(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return what the known words of a run say, and its words about talking.

    A flag without its value is left to whoever reads all words; the last of two counts.

    >>> read_words(["photos", "--mem=8GB", "--host_mem", "2GB", "--steps", "5", "--json"])
    ({'mem': '8GB', 'host_mem': '2GB'}, ['--json'])
    """
    said: dict[str, str] = {}
    talk: list[str] = []
    words = list(arguments)
    while words and words[0] != "--":
        name, equals, value = words.pop(0).partition("=")
        flag = name.replace("_", "-")
        takes_value = flag in _WORDS or TALKING.get(flag, False)
        has_value = bool(equals)
        if takes_value and not equals and words and _is_value(words[0]):
            value, has_value = words.pop(0), True
        if flag in TALKING:
            talk.append(f"{flag}={value}" if has_value else flag)
        elif flag in _WORDS and has_value:
            said[_WORDS[flag]] = value
    return said, talk


def _is_value(word: str) -> bool:
    """Return whether argparse takes a word for the value of the flag before it."""
    return not word.startswith("-") or word == "-" or " " in word


def find_cap(said: Mapping[str, str]) -> tuple[int | None, bool]:
    """Return the cap of a run, None without one, and whether it is sure to be about this machine.

    With a discrete accelerator `mem` is about its memory, and `host_mem` about this machine's.

    Args:
      said: on the command line, by recipe key.

    Raises:
      InputError: a cap is no size.
    """
    folder, file = said.get("resume"), said.get("recipe")
    for name in ("recipe", "resume"):
        if said.get(name):
            check_path(said[name], f"--{name}")
    path = Path(folder, "recipe.toml") if folder else Path(file) if file else None
    written = _read_recipe(path) if path is not None and path.is_file() else {}

    def size(names: tuple[str, str]) -> int | None:
        places = [said.get(names[0]), *map(written.get, names)]
        return next((parse_bytes(text) for text in places if text is not None), None)

    cap_bytes, host_cap_bytes = size(_MEM), size(_HOST_MEM)
    if host_cap_bytes is not None:
        return host_cap_bytes, True
    device = said.get("device") or written.get("device", "auto")
    return cap_bytes, caps_this_machine(device, _GPUS)


def find_plan(said: Mapping[str, str]) -> int | None:
    """Return what a run that is gone on with was planned to need; None where nobody knows."""
    if not said.get("resume"):
        return None
    try:
        peak_bytes = json.loads(Path(said["resume"], "plan.json").read_bytes())["peak_bytes"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # it is advice only, and a damaged file gives none
    return peak_bytes if type(peak_bytes) is int and peak_bytes > 0 else None


def _read_recipe(path: Path) -> Mapping[str, str]:
    """Return what a recipe file says of the cap and the device, by key.

    A file with a mistake says nothing here; whoever reads it in earnest says what is wrong. Not a
    pipe, which can be read only once. Read in a child: a reader of TOML holds a megabyte.

    Raises:
      InputError: the child ended in some other way, so there may be a cap.
    """

    def work() -> None:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        said: dict[str, str] = {}
        with suppress(OSError, ValueError, RecursionError):
            found = tomllib.loads(path.read_text("utf-8"))
            said = {name: str(found[name]) for name in _WRITTEN if name in found}
        os.write(1, json.dumps(said).encode())

    status, text = in_child(work)
    if status:
        raise InputError(f"{path}: cannot be read (its reader ended with status {status}).")
    said: dict[str, str] = json.loads(text)
    return said
