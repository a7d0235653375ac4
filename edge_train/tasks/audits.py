"""The command `audit`, which several tasks have: its options, and what is checked before it."""

import argparse
from collections.abc import Callable

from edge_train.command import Command
from edge_train.errors import InputError, OutOfMemory, RunFolderError
from edge_train.paths import path_word
from edge_train.records.folder import RunFolder
from edge_train.registry import load
from edge_train.units import parse_bytes


def audit_command(
    task: str, says: str, add: Callable[[argparse.ArgumentParser], None], function: str
) -> Command:
    """Return the command `audit` of a task.

    Args:
      add: adds the options of its own.
      function: "module:function" of an `Audit` to the numbers that it leaves, and a line.
    """

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run", type=path_word, metavar="RUN")
        parser.add_argument("--mem", help="the most memory that it may hold, such as 500MB")
        parser.add_argument("--threads", type=int, help="of the engine; default: all cores")
        add(parser)

    def run(typed: argparse.Namespace) -> int:
        from edge_train.records.lock import only_writer
        from edge_train.tasks import read_recipe
        from edge_train.tasks.auditing import VERSION, Audit, leave

        folder = typed.run.expanduser()
        if not RunFolder(folder).recipe.is_file():
            raise RunFolderError(RunFolder(folder).no_run())
        recipe = read_recipe(RunFolder(folder).recipe)
        if recipe.task != task:
            raise InputError(
                f"{folder}: a run of task {recipe.task!r}; runs of images and retrieve can be "
                "audited."
            )
        for name in ("threads", "forwards", "queries", "count"):
            value = getattr(typed, name, None)
            if value is not None and value < 1:
                raise InputError(f"--{name} is {value}, must be 1 or more.")
        cap = None if typed.mem is None else parse_bytes(typed.mem)
        audit = Audit(folder, recipe, cap, typed, typed.house)
        with only_writer(folder, audit.say):
            try:
                numbers, line = load(function)(audit)
            except MemoryError as error:
                raise OutOfMemory(
                    f"{folder}: memory ran out in the audit; type the command again with a larger "
                    "--mem, it goes on where it was."
                ) from error
            leave(folder, {"version": VERSION, "task": task, **numbers})
        audit.say(line)
        audit.say(f"  {typed.house.report(folder)}")
        return 0

    return Command(name="audit", help=says, add=options, run=run)
