"""`edge-train infer` of tasks that answer texts: the texts of the command line, or a line each."""

import argparse
import sys
from collections.abc import Sequence

from edge_train.command import Command
from edge_train.errors import InputError
from edge_train.paths import path_word
from edge_train.recipe.key import is_unicode
from edge_train.registry import load

_MOST_CHARACTERS = 16_000_000  # of the standard input


def asking_command(help_: str, infer: str) -> Command:
    """Return `infer` of a task.

    Args:
      help_: what it says, for people.
      infer: "module:function", which takes the run, texts and `as_json`, and yields lines.
    """

    def run(options: argparse.Namespace) -> int:
        for line in load(infer)(options.run, _texts(options.texts), as_json=options.json):
            print(line, flush=True)
        return 0

    return Command(name="infer", help=help_, add=_add, run=run)


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=path_word, metavar="RUN")
    parser.add_argument(
        "texts", nargs="+", metavar="TEXT", help="or - for those of standard input, one a line"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def _texts(words: Sequence[str]) -> list[str]:
    """Return the texts that words mean.

    Raises:
      InputError: a text is no UTF-8, or `-` is one of several; standard input holds none, or too
        much.
    """
    if list(words) != ["-"]:
        if "-" in words:
            raise InputError("- stands for the texts of standard input; leave out the others.")
        for number, text in enumerate(words, 1):
            if not is_unicode(text):
                raise InputError(f"text {number}: is not UTF-8; convert it first.")
        return list(words)
    try:
        found = sys.stdin.read(_MOST_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise InputError("standard input: is not UTF-8; convert it first.") from error
    if not is_unicode(found):
        raise InputError("standard input: is not UTF-8; convert it first.")
    if len(found) > _MOST_CHARACTERS:
        raise InputError(
            f"standard input: holds more than {_MOST_CHARACTERS:,} characters; ask in parts."
        )
    texts = [line for line in found.split("\n") if line.strip()]
    if not texts:
        raise InputError("standard input: holds no text; write one a line.")
    return texts
