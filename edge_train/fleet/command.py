"""`edge-train fleet`: many devices train one model."""

import argparse

from edge_train.command import Command
from edge_train.paths import path_word


def _add(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="what to do", required=True, metavar="VERB", dest="verb")
    text = "write a Flower app of a recipe; `flwr run OUT` trains it"
    one = verbs.add_parser("init", help=text, allow_abbrev=False)
    one.add_argument("recipe", type=path_word, metavar="RECIPE", help="file of a recipe")
    one.add_argument("out", type=path_word, metavar="OUT", help="folder of the app, made new")
    one.add_argument(
        "--exchange",
        choices=("slopes", "adapters"),
        default="slopes",
        help="what devices send: slopes of every step, or what their own steps changed (adapters)",
    )


def _run(options: argparse.Namespace) -> int:
    from edge_train.fleet.init import init

    print(init(options.recipe, options.out, options.exchange))
    return 0


FLEET = Command(
    name="fleet",
    help="train one model on many devices that keep their data: fleet init RECIPE OUT",
    add=_add,
    run=_run,
)
