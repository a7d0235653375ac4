"""What a run gives up, one thing at a time, when memory does not suffice.

No rung changes what is computed, only how much of it at once: batches, noise, directions and rates
stay. Engines round differently in calls of another size, so a run that went down the ladder is not
bitwise the one that did not; the journal's `resume` record says which rungs it stands on.
"""

from collections.abc import Mapping
from typing import Any

from edge_train.recipe import Recipe

# What `auto` leaves to choose, before the first step only. Smaller calls come first, since they
# compute the same; then weights that are nearly the same; then a gradient that is estimated.
_CHOICES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("int8 weights", {"quant": "int8"}),
    ("forward passes only", {"method": "zo"}),
)
RUNGS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("at most 8 samples in each call of the model", {"batch_limit": 8}),
    ("one sample in each call of the model", {"batch_limit": 1}),
    ("weights left in the artifact's file", {"lean": True}),
    ("no pictures", {"previews": False}),
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
    rungs = RUNGS if asked is None else (*RUNGS[:2], *_CHOICES, *RUNGS[2:])
    for _, changes in rungs:
        if asked is not None and not _is_free(changes, recipe, asked):
            continue
        if "lean" in changes and recipe.runtime != "onnx":
            continue
        if any(_is_larger(getattr(recipe, name), value) for name, value in changes.items()):
            return dict(changes)
    return {}


def _is_free(changes: Mapping[str, Any], recipe: Recipe, asked: Recipe) -> bool:
    """Return whether a choice was left to us and is another one than was made."""
    if "method" in changes:
        able = recipe.task != "language-model"
        return asked.method == "auto" and recipe.method == "backprop" and able
    if "quant" in changes:
        able = recipe.task in ("personalize", "language-model") and recipe.runtime == "torch"
        return asked.quant == "auto" and recipe.quant == "none" and able
    return True


def _is_larger(value: Any, than: Any) -> bool:
    """Return whether a recipe's value needs more memory than a rung's; None sets no limit."""
    if isinstance(than, bool | str):
        return bool(value != than)
    return value is None or value > than


def words(changes: Mapping[str, Any]) -> str:
    """Return what a set of changes means, for people.

    >>> words({"batch_limit": 1, "lean": True})
    "one sample in each call of the model, weights left in the artifact's file"
    """
    return ", ".join(text for text, own in (*_CHOICES, *RUNGS) if own.items() <= changes.items())
