"""`edge-train score`: how far scans are from what an autoencoder knows."""

import argparse

from edge_train.command import Command
from edge_train.paths import path_word
from edge_train.registry import load


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=path_word, metavar="RUN")
    parser.add_argument(
        "scans", type=path_word, nargs="+", metavar="SCAN", help="clouds, or folders of them"
    )
    parser.add_argument(
        "--out", type=path_word, help="folder for reconstructions (.ply) and codes.safetensors"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def _run(options: argparse.Namespace) -> int:
    score = load("edge_train.tasks.points.scoring:score")
    for line in score(options.run, options.scans, out=options.out, as_json=options.json):
        print(line, flush=True)
    return 0


SCORE = Command(
    name="score",
    help="how unusual scans are, by a run of task points; their reconstructions and codes",
    add=_add,
    run=_run,
)
