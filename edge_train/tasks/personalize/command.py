"""`edge-train generate`: pictures with a learned word."""

import argparse

from edge_train.command import Command
from edge_train.paths import path_word
from edge_train.registry import load


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=path_word, metavar="RUN")
    parser.add_argument("--prompt", action="append", metavar="PROMPT", help="may be repeated")
    parser.add_argument("--count", type=int, default=4, help="pictures per prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30, help="denoiser steps")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--out", type=path_word, help="folder; default: RUN/generated")


def _run(options: argparse.Namespace) -> int:
    generate = load("edge_train.tasks.personalize.generate:generate")
    for path in generate(
        options.run,
        options.prompt,
        count=options.count,
        seed=options.seed,
        steps=options.steps,
        guidance=options.guidance,
        out=options.out,
    ):
        print(path)
    return 0


GENERATE = Command(name="generate", help="pictures with a learned token", add=_add, run=_run)
