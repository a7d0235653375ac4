"""The flags of how tokens are drawn; without NumPy, which every command's parser would load."""

import argparse
from typing import TYPE_CHECKING, Any

from edge_train.errors import InputError
from edge_train.registry import load

if TYPE_CHECKING:
    from edge_train.tasks.language_model.sampling import Sampling

# As llama.cpp has them: flag, type, default, help.
_FLAGS: tuple[tuple[str, type, float, str], ...] = (
    ("--temperature", float, 0.8, "0: always the most likely word"),
    ("--top-k", int, 40, "so many of the most likely words; 0: all"),
    ("--top-p", float, 0.95, "the most likely words that have this share together"),
    ("--min-p", float, 0.05, "words at least so likely, the best being 1"),
    ("--repeat-penalty", float, 1.0, "above 1: words are repeated less"),
)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add what every command that writes text reads."""
    parser.add_argument("--max-tokens", type=int, default=256, help="of an answer; default: 256")
    for flag, kind, default, text in _FLAGS:
        parser.add_argument(flag, type=kind, default=default, help=f"{text}; default: {default:g}")
    parser.add_argument("--seed", type=int, default=0, help="of the draws; default: 0")
    parser.add_argument("--threads", type=int, help="default: as many as the machine has cores")


def sampling_of(options: argparse.Namespace) -> "Sampling":
    """Return the settings that were typed.

    Raises:
      InputError: a number is out of its range.
    """
    ranges = {"max_tokens": (1, 1 << 31), "seed": (0, (1 << 63) - 1), "threads": (1, 1024)}
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is {value}, must be from {low} to {high}.")
    names = [flag[2:].replace("-", "_") for flag, *_ in _FLAGS]
    found: Any = load("edge_train.tasks.language_model.sampling:Sampling")
    made: Sampling = found(**{name: getattr(options, name) for name in names})
    return made
