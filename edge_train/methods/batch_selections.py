"""A small batch is chosen from a large one: CoLM, largest losses, chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_train.errors import InputError
from edge_train.methods.choosing import Held, Selection
from edge_train.methods.method import CANDIDATES, FORWARD, LAST_LAYER
from edge_train.recipe.key import Key

if TYPE_CHECKING:
    from edge_train.protocols import BatchSelection
    from edge_train.recipe import Recipe

_TIMES = 4  # candidates for each sample that is trained, unless the recipe says otherwise
_FLOAT, _MOMENTS = 4, 2

_CANDIDATES = Key(
    "candidates",
    int,
    "samples that a step draws and chooses its batch from; default: four times the batch size",
    low=2,
    high=65536,
)
_PLACES = Key(
    "compared_numbers",
    int,
    "numbers of each sample's gradient that colm compares, the largest of its source's mean",
    default=2560,
    low=1,
    high=10_000_000,
)
_DIRECTIONS = Key(
    "selection_directions",
    int,
    "directions along which colm-zo sees gradients; 1: as published",
    default=8,
    low=1,
    high=1024,
)


def _drawn(recipe: Recipe) -> int:
    """Return how many samples a step draws.

    Raises:
      InputError: fewer than it trains.
    """
    samples = recipe.samples or 1
    found: int = recipe.option("candidates") or _TIMES * samples
    if found < samples:
        raise InputError(
            f"--candidates {found}: a step trains {samples} of them; use at least {samples}, or a "
            "smaller --batch-size."
        )
    return found


def _held(recipe: Recipe, shape: tuple[int, int], rows: int) -> Held:
    """Return the bytes of factors, of moments and means, and of what is compared."""
    outputs, inputs = shape
    drawn, places = _drawn(recipe), min(recipe.option("compared_numbers"), outputs * inputs)
    factors = drawn * rows * (outputs + inputs) * 2  # and once more while they are put together
    matrices = outputs * inputs * (_MOMENTS + 3)  # and a mean, its square and their order
    directions = recipe.option("selection_directions") or 0
    features = places * (4 * drawn + 3 * rows + directions)
    numbers: int = factors + matrices + features + 4 * drawn * drawn
    return Held(_FLOAT * numbers, _FLOAT * _MOMENTS * outputs * inputs)


def _random(recipe: Recipe) -> BatchSelection:
    from edge_train.estimators.batch_choice import RandomChoice

    return RandomChoice(recipe.samples or 1)


def _loss(recipe: Recipe) -> BatchSelection:
    from edge_train.estimators.batch_choice import LargestLosses

    return LargestLosses(recipe.samples or 1, _drawn(recipe))


def _colm(recipe: Recipe) -> BatchSelection:
    from edge_train.estimators.batch_choice import Coreset

    return Coreset(recipe.samples or 1, _drawn(recipe), recipe.option("compared_numbers"))


def _colm_zo(recipe: Recipe) -> BatchSelection:
    from edge_train.estimators.batch_choice import Coreset

    count, places = recipe.samples or 1, recipe.option("compared_numbers")
    directions = recipe.option("selection_directions")
    return Coreset(count, _drawn(recipe), places, directions, recipe.seed)


SELECTIONS = (
    Selection(
        name="colm",
        says="small sources whole; of others those that stand for all, by their gradients",
        build=_colm,
        needs=frozenset({CANDIDATES, LAST_LAYER}),
        drawn=_drawn,
        passes=_drawn,
        held=_held,
        keys=(_CANDIDATES, _PLACES),
    ),
    Selection(
        name="colm-zo",
        says="as colm, by slopes along a few directions; with one as published",
        build=_colm_zo,
        needs=frozenset({CANDIDATES, LAST_LAYER}),
        drawn=_drawn,
        passes=_drawn,
        held=_held,
        keys=(_CANDIDATES, _PLACES, _DIRECTIONS),
    ),
    Selection(
        name="loss",
        says="the largest losses",
        build=_loss,
        needs=frozenset({CANDIDATES, FORWARD}),
        drawn=_drawn,
        passes=_drawn,
        keys=(_CANDIDATES,),
    ),
    Selection(
        name="random",
        says="by chance, to compare with",
        build=_random,
        needs=frozenset({CANDIDATES}),
        drawn=_drawn,
        keys=(_CANDIDATES,),
    ),
)
