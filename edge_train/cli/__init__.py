"""The command line: verbs by name, errors as one sentence, exit statuses; no logic."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from edge_train import __version__
from edge_train.command import Command
from edge_train.errors import INTERRUPTED, NOT_STARTED, EdgeTrainError, OutOfMemory
from edge_train.memory.link import Link
from edge_train.memory.supervisor import supervise
from edge_train.registry import Registry, nearest
from edge_train.units import parse_bytes

# Packages that only some installations have; what needs one says so in a sentence.
_OF_THE_DESK = {
    "accelerate",
    "diffusers",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "optimum",
    "peft",
    "torch",
    "transformers",
}
_GPUS = Path("/proc/driver/nvidia/gpus")  # there where a discrete accelerator may be used
commands: Registry[Command] = Registry("command", "edge_train.cli.verbs", "COMMANDS")


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints end with our exit status."""

    def error(self, message: str) -> NoReturn:
        self.exit(NOT_STARTED, f"edge-train: {message}\nSee `{self.prog} --help`.\n")


def main(arguments: Sequence[str] | None = None, link: Link | None = None) -> int:
    """Run one command; return its exit status (0, 2, 3 or 130).

    Args:
      arguments: words; the command line if not given. A run with a cap that comes from the command
        line happens in a worker process behind the wall, else in this one.
      link: to the supervisor, in a worker.

    Raises:
      OutOfMemory: in a worker; its supervisor decides what comes next.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments is None and words[:1] == ["run"] and hasattr(os, "fork"):
            cap_bytes, host = _cap(words)
            if cap_bytes is not None:
                return supervise(words, cap_bytes, host=host)
        return _command(words, link)
    except OutOfMemory as error:
        if link is not None:
            raise
        _say(str(error))
        return error.exit_status
    except EdgeTrainError as error:
        _say(str(error))
        return error.exit_status
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_DESK:
            raise
        _say(f"this needs {error.name}, which is not installed; `pip install edge-train[desk]`.")
        return NOT_STARTED
    except KeyboardInterrupt:
        _say("interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_STARTED


def _say(text: str) -> None:
    for line in text.split("\n"):
        print(f"edge-train: {line}", file=sys.stderr)


def _command(words: list[str], link: Link | None) -> int:
    verbs = _verbs()
    if words and not words[0].startswith("-") and words[0] not in verbs:
        _say(f"command {words[0]!r} is not known; {nearest(words[0], verbs)}.")
        return NOT_STARTED
    if words and words[0] in ("run", "plan"):
        # their flags are the keys of a task's recipe, so another parser reads them
        return verbs[words[0]].run(argparse.Namespace(words=words[1:], link=link))
    options = _parser(verbs).parse_args(words)
    options.link = link
    status: int = options.command(options)
    return status


def _verbs() -> dict[str, Command]:
    """Return every command: ours, those of tasks, and those of other packages."""
    from edge_train.tasks import tasks

    found = dict(commands.all())
    for task in tasks.all().values():
        found |= {command.name: command for command in task.commands}
    for name, why in {**commands.broken(), **tasks.broken()}.items():
        _say(f"{name} of another package cannot be used: {why}.")
    return found


def _parser(verbs: dict[str, Command]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="edge-train",
        description="Train on the device, inside a byte budget you name.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"edge-train {__version__}")
    added = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in verbs.values():
        one = added.add_parser(command.name, help=command.help, allow_abbrev=False)
        command.add(one)
        one.set_defaults(command=command.run)
    return parser


def _cap(words: Sequence[str]) -> tuple[int | None, bool]:
    """Return the cap of a run, and whether it is sure to be about this machine's memory.

    Reads no more than that: this process stays small. A file that cannot be read has no cap here;
    whoever reads it in earnest says what is wrong with it.
    """
    typed: dict[str, str] = {}
    for at, word in enumerate(words):
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("_", "-")
        if name in ("mem", "host-mem", "device", "recipe", "resume", "resume-from-checkpoint"):
            after = words[at + 1] if at + 1 < len(words) else ""
            typed[name] = value if equals else after
    resume = typed.get("resume") or typed.get("resume-from-checkpoint")
    path = Path(resume) / "recipe.toml" if resume else Path(typed.get("recipe", ""))
    written: dict[str, Any] = {}
    if path.is_file():  # a pipe can be read only once, by the worker
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        with suppress(OSError, ValueError):
            written = tomllib.loads(path.read_text("utf-8"))

    def size(flag: str, *keys: str) -> int | None:
        found = typed.get(flag) or next((written[key] for key in keys if key in written), None)
        with suppress(EdgeTrainError):  # the run itself says so, with everything else
            return None if found is None else parse_bytes(str(found))
        return None

    cap_bytes = size("mem", "mem", "cap_bytes")
    host_cap_bytes = size("host-mem", "host_mem", "host_cap_bytes")
    if host_cap_bytes is not None:
        return host_cap_bytes, True
    device = typed.get("device") or written.get("device", "auto")
    return cap_bytes, device == "cpu" or not _GPUS.is_dir()
