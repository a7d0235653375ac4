"""What stands after `edge-train`: a record of a verb, its options and what it does."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass


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
