"""Sources of samples: of which each one is, and whether there are enough to choose from."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import InputError
from edge_train.methods import drawn_samples
from edge_train.recipe import Recipe

SOURCES_FLAG = "--sources"
FILES = "files"  # each file is a source; any other word is a column


def check_sources(recipe: Recipe) -> None:
    """Refuse sources that nothing reads.

    Raises:
      InputError: as described.
    """
    if getattr(recipe, "sources", None) is not None and recipe.batch_selection is None:
        raise InputError(
            "sources is read by batch selections; name one with --batch-selection, or leave it out."
        )


def check_candidates(recipe: Recipe, samples: int) -> None:
    """Refuse to draw more samples for a step than there are.

    Raises:
      InputError: as described.
    """
    if recipe.batch_selection is not None and (drawn := drawn_samples(recipe)) > samples:
        raise InputError(
            f"--batch-selection {recipe.batch_selection} draws {drawn} samples a step, but there "
            f"are {samples} to train on; use --candidates {samples} or fewer."
        )


def source_numbers(names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the number of each sample's source, and what each is called, in alphabetical order.

    >>> numbers, names = source_numbers(["web", "code", "web"])
    >>> numbers.tolist(), names
    ([1, 0, 1], ('code', 'web'))
    """
    found = tuple(sorted(set(names)))
    number_of = {name: number for number, name in enumerate(found)}
    return np.array([number_of[name] for name in names], np.int64), found


def sentence(names: Iterable[str], sizes: Iterable[Any]) -> str:
    """Return a line that says how many samples each source has.

    >>> sentence(["code", "web"], [1, 30])
    '2 sources: code 1, web 30'
    """
    parts = [f"{name or '(none)'} {size}" for name, size in zip(names, sizes, strict=True)]
    shown = [*parts[:8], f"{len(parts) - 8} more"] if len(parts) > 9 else parts
    return f"{len(parts)} source{'s' if len(parts) > 1 else ''}: {', '.join(shown)}"
