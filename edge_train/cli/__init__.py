"""The command line: verbs by name, errors as one sentence, exit statuses; no logic."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from edge_train import __version__
from edge_train.cli.house import Above
from edge_train.cli.shared_verbs import commands_of, meant
from edge_train.command import Command
from edge_train.errors import INTERRUPTED, NOT_STARTED, UNREAD, EdgeTrainError, OutOfMemory
from edge_train.memory.link import Link
from edge_train.memory.streams import is_unread
from edge_train.registry import Registry, nearest

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
commands: Registry[Command] = Registry("command", "edge_train.cli.verbs", "COMMANDS")


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints end with our exit status."""

    def error(self, message: str) -> NoReturn:
        self.exit(NOT_STARTED, f"edge-train: {message}\nSee `{self.prog} --help`.\n")


def main(arguments: Sequence[str], link: Link | None = None, *, began: float | None = None) -> int:
    """Run one command in this process; return its exit status (0, 2, 3, 130 or 141).

    What was typed comes through `entry.py`, which starts a run that has a cap in a worker.

    Args:
      arguments: words.
      link: to the supervisor, in a worker.
      began: when this process did, which does nothing else; as `time.monotonic` tells.

    Raises:
      OutOfMemory: in a worker; its supervisor decides what comes next.
    """
    try:
        return _command(list(arguments), link, began)
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
    except OSError as error:  # a disk that fails, a stream that is full or that nobody reads
        if isinstance(error, BrokenPipeError) and is_unread():
            return UNREAD
        _say(f"{error.filename or 'a file or stream'}: cannot be used ({error.strerror}).")
        return NOT_STARTED


def _say(text: str) -> None:
    with suppress(OSError):
        for line in text.split("\n"):
            print(f"edge-train: {line}", file=sys.stderr)


def _command(words: list[str], link: Link | None, began: float | None) -> int:
    from edge_train.tasks import tasks

    known = known_commands()
    if words and not words[0].startswith("-") and words[0] not in known:
        _say(f"command {words[0]!r} is not known; {nearest(words[0], known)}.")
        return NOT_STARTED
    if words and words[0] in ("run", "plan", "init"):
        # their flags are the keys of a task's recipe, so another parser reads them
        return known[words[0]].run(argparse.Namespace(words=words[1:], link=link, began=began))
    if (own := meant(words, tasks.all())) is not None:
        known[words[0]] = own
    options = _parser(known).parse_args(words)
    options.link, options.house = link, Above()
    status: int = options.command(options)
    return status


def known_commands() -> dict[str, Command]:
    """Return every command: ours, those of tasks, and those of other packages."""
    from edge_train.tasks import tasks

    found = commands.all() | commands_of(tasks.all())
    for name, why in {**commands.broken(), **tasks.broken()}.items():
        _say(f"{name} of another package cannot be used: {why}.")
    return found


def _parser(verbs: dict[str, Command]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="edge-train",
        description="Train on the device, inside the memory you name.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"edge-train {__version__}")
    added = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in verbs.values():
        text = command.help.replace("%", "%%")  # argparse formats it
        one = added.add_parser(command.name, help=text, allow_abbrev=False)
        try:
            command.add(one)
            one.set_defaults(command=command.run)
        except Exception as error:  # noqa: BLE001 - code of others may raise anything
            where = getattr(command.add, "__module__", "its package")
            _say(f"{command.name} of {where} cannot be used: {type(error).__name__}: {error}.")
            one.set_defaults(command=lambda _: NOT_STARTED)
    return parser
