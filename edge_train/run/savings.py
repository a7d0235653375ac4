"""What a run gives up, one thing at a time, when memory does not suffice.

Once training began, no rung changes what is computed, only how much of it at once: batches, noise,
directions and rates stay. Engines round differently in calls of another size, so a run that went
down the ladder is not bitwise the one that did not; the journal's `resume` record says which rungs
it stands on. Before the first step, what the user left to `auto` may be chosen smaller, too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge_train.recipe import PROJECTING, Recipe


@dataclass(frozen=True)
class Rung:
    """One thing to give up.

    Attributes:
      words: what it means, for people.
      changes: recipe keys and the values they get.
      helps: whether it saves anything in a run of this recipe.
      choice: it changes what is learned, or how well; taken only where the user said `auto`.
    """

    words: str
    changes: Mapping[str, Any]
    helps: Callable[[Recipe], bool] = lambda recipe: True
    choice: bool = False


# Where weights are quantized when a run starts; elsewhere they are as they were exported, or float.
_QUANTIZED_HERE = (("personalize", "torch"), ("language-model", "torch"), ("network", "numpy"))
# Tasks that train all weights: the state of the optimizer is the most that they hold.
_ALL_WEIGHTS = ("classify", "language-model")
_FORWARD_ONLY = ("personalize", "classify")
# Smaller calls come first, since they compute the same; then weights or moments that are nearly
# the same; then a gradient that is estimated.
RUNGS: tuple[Rung, ...] = (
    Rung("at most 8 samples in each call of the model", {"batch_limit": 8}),
    Rung("one sample in each call of the model", {"batch_limit": 1}),
    Rung(
        "freed memory given back at once",
        {"lean": True},
        lambda recipe: recipe.task == "language-model",
    ),
    Rung(
        "one sequence differentiated at a time",
        {"micro_batch": 1},
        lambda recipe: (
            recipe.task == "language-model" and recipe.method in PROJECTING and recipe.samples != 1
        ),
    ),
    Rung(
        "int8 weights",
        {"quant": "int8"},
        lambda recipe: recipe.quant == "none" and (recipe.task, recipe.runtime) in _QUANTIZED_HERE,
        choice=True,
    ),
    Rung(
        "optimizer state in 8 bits",
        {"method": "adamw8bit"},
        lambda recipe: recipe.task in _ALL_WEIGHTS and recipe.method == "backprop",
        choice=True,
    ),
    Rung(
        "forward passes only",
        {"method": "zo"},
        lambda recipe: recipe.task in _FORWARD_ONLY and recipe.method in ("backprop", "adamw8bit"),
        choice=True,
    ),
    Rung(
        "int4 weights",
        {"quant": "int4"},
        lambda recipe: recipe.quant == "int8" and recipe.task == "language-model",
        choice=True,
    ),
    Rung(
        "an engine that keeps less between calls, weights in their file",
        {"lean": True},
        lambda recipe: recipe.runtime in ("onnx", "ort-training"),
    ),
    Rung("no pictures", {"previews": False}, lambda recipe: recipe.task == "personalize"),
)


def next_smaller(recipe: Recipe, asked: Recipe | None = None) -> dict[str, Any]:
    """Return the recipe keys to change next; empty at the bottom.

    Args:
      recipe: with every default filled in.
      asked: as it was before; what it leaves to `auto` may be chosen smaller. None once training
        began: then nothing that is computed changes any more.

    >>> next_smaller(Recipe(batch_limit=1))
    {'previews': False}
    """
    for rung in RUNGS:
        if rung.choice and not (asked and _is_auto(rung, asked)):
            continue
        larger = any(_is_larger(getattr(recipe, key), value) for key, value in rung.changes.items())
        if larger and rung.helps(recipe):
            return dict(rung.changes)
    return {}


def smallest(recipe: Recipe) -> Recipe:
    """Return a recipe at the bottom of the ladder, its choices as they are."""
    while changes := next_smaller(recipe):
        recipe = replace(recipe, **changes)
    return recipe


def words(changes: Mapping[str, Any]) -> str:
    """Return what a set of changes means, for people.

    >>> words({"batch_limit": 1, "previews": False})
    'one sample in each call of the model, no pictures'
    """
    return ", ".join(rung.words for rung in RUNGS if rung.changes.items() <= changes.items())


def _is_auto(rung: Rung, asked: Recipe) -> bool:
    return all(getattr(asked, key) == "auto" for key in rung.changes)


def _is_larger(value: Any, than: Any) -> bool:
    """Return whether a recipe's value needs more memory than a rung's; None sets no limit."""
    if isinstance(than, bool | str):
        return bool(value != than)
    return value is None or value > than
