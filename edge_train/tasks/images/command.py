"""`edge-train infer`: the class of a picture, or that it is unknown."""

import argparse

from edge_train.command import Command
from edge_train.paths import file_word, path_word
from edge_train.registry import load


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=path_word, metavar="RUN")
    parser.add_argument(
        "pictures", type=path_word, nargs="+", metavar="PICTURE", help="files, or folders of them"
    )
    parser.add_argument(
        "--model", type=file_word, help="the backbone, where it is now; default: where it was"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def _run(options: argparse.Namespace) -> int:
    infer = load("edge_train.tasks.images.answering:infer")
    for line in infer(options.run, options.pictures, model=options.model, as_json=options.json):
        print(line, flush=True)
    return 0


INFER = Command(
    name="infer",
    help="the class of a picture, or that it is unknown",
    add=_add,
    run=_run,
)
