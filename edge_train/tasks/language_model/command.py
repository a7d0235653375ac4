"""`edge-train generate`, `chat` and `infer` of a language model."""

import argparse
import sys

from edge_train.command import Command
from edge_train.errors import InputError
from edge_train.paths import file_word, path_word
from edge_train.registry import load
from edge_train.tasks.asking import asking_command


def _add_both(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=path_word, metavar="RUN")
    parser.add_argument(
        "--base", action="store_true", help="the model that training began with answers, too"
    )
    parser.add_argument(
        "--model",
        type=file_word,
        help="where the model that training began with is now; default: where it was",
    )
    load("edge_train.tasks.language_model.sampling_flags:add_sampling")(parser)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    _add_both(parser)
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="may be repeated")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="go on from the prompt as it stands, not as a message in the model's chat template",
    )


def _generate(options: argparse.Namespace) -> int:
    if not options.prompt:
        raise InputError('--prompt is missing; write --prompt "..." behind the run.')
    sampling = load("edge_train.tasks.language_model.sampling_flags:sampling_of")(options)
    load("edge_train.tasks.language_model.generate:generate")(
        options.run,
        options.prompt,
        sys.stdout,
        sampling=sampling,
        most=options.max_tokens,
        seed=options.seed,
        threads=options.threads,
        raw=options.raw,
        base=options.base,
        model=options.model,
    )
    return 0


def _add_chat(parser: argparse.ArgumentParser) -> None:
    _add_both(parser)
    parser.add_argument("--system", metavar="TEXT", help="what stands before the conversation")


def _chat(options: argparse.Namespace) -> int:
    sampling = load("edge_train.tasks.language_model.sampling_flags:sampling_of")(options)
    status: int = load("edge_train.tasks.language_model.chat:chat")(
        options.run,
        sampling=sampling,
        most=options.max_tokens,
        seed=options.seed,
        threads=options.threads,
        system=options.system,
        base=options.base,
        model=options.model,
    )
    return status


GENERATE = Command(
    name="generate",
    help="text of a trained language model",
    add=_add_generate,
    run=_generate,
)
CHAT = Command(
    name="chat",
    help="talk to a trained language model in the terminal",
    add=_add_chat,
    run=_chat,
)
INFER = asking_command(
    "which answer of its data a run with --loss-on labels gives to a text",
    "edge_train.tasks.language_model.naming:infer",
)
