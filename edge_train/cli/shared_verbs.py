"""One verb of several tasks: the task of the run that it names decides which of them is meant."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_train.command import Command
from edge_train.errors import InputError
from edge_train.paths import path_word
from edge_train.records.folder import RunFolder

if TYPE_CHECKING:
    from edge_train.tasks.task import Task


def commands_of(tasks: Mapping[str, "Task"]) -> dict[str, Command]:
    """Return the commands of tasks by name; one that several have stands for all of them."""
    found: dict[str, Command] = {}
    for name, several in shared(tasks).items():
        found[name] = next(iter(several.values())) if len(several) == 1 else _all(name, several)
    return found


def shared(tasks: Mapping[str, "Task"]) -> dict[str, dict[str, Command]]:
    """Return every command of a task: its name, then each task that has it."""
    found: dict[str, dict[str, Command]] = {}
    for task in tasks.values():
        for command in task.commands:
            found.setdefault(command.name, {})[task.name] = command
    return found


def meant(words: Sequence[str], tasks: Mapping[str, "Task"]) -> Command | None:
    """Return the command of the task whose run stands among the words; None: no run does.

    Args:
      words: of the command line, the verb first.

    Raises:
      InputError: the run is of a task that has no such command, or its recipe cannot be read.
    """
    several = shared(tasks).get(words[0], {}) if words else {}
    if len(several) < 2:
        return None
    for word in words[1:]:
        if word.startswith("-") or not _is_run(word):
            continue
        task = _task_of(Path(word))
        if task not in several:
            raise InputError(
                f"{word}: a run of task {task!r}, and {words[0]} is for runs of "
                f"{' or '.join(several)}."
            )
        return several[task]
    return None


def _is_run(word: str) -> bool:
    try:
        return RunFolder(Path(word)).recipe.is_file()
    except (OSError, ValueError):  # a word that no file can have as its name
        return False


def _task_of(run: Path) -> str:
    from edge_train.tasks import read_recipe

    return read_recipe(RunFolder(run).recipe).task


def _all(name: str, several: Mapping[str, Command]) -> Command:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run", type=path_word, metavar="RUN", help="decides what follows")
        # of no run at all nobody knows which options it has; that it is none is what is said
        parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = "\n".join(_options(task, one) for task, one in several.items())

    def run(options: argparse.Namespace) -> int:
        raise InputError(RunFolder(options.run).no_run())

    return Command(name=name, help=", or ".join(c.help for c in several.values()), add=add, run=run)


def _options(task: str, command: Command) -> str:
    parser = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
    command.add(parser)
    text = parser.format_help().partition("options:\n")[2].rstrip()
    return f"options for a run of task {task}:\n{text}\n"
