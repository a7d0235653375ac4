"""What stands after `edge-train`: a record of a verb, its options and what it does."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class House(Protocol):
    """What a task's command may ask of the layers above it: `options.house`."""

    def train(self, recipe: Any, folder: Path) -> int:
        """Train a recipe in a folder, or go on with that run; return the exit status."""
        ...

    def report(self, run: Path) -> Path:
        """Write the report of a run anew; return its page."""
        ...


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb of the command line.

    Attributes:
      name: the verb.
      help: a line for people.
      add: adds its options to a parser.
      run: does it; returns the exit status.
    """

    name: str
    help: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
