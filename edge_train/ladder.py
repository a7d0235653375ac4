"""What a run gives up, one thing at a time, when memory does not suffice.

No rung changes what is computed, only how much of it at once: batches, noise, directions and rates
stay. Engines round differently in calls of another size, so a run that went down the ladder is not
bitwise the one that did not; the journal's `resume` record says which rungs it stands on.
"""

from collections.abc import Mapping
from typing import Any

from edge_train.recipe import Recipe

RUNGS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("at most 8 samples in each call of the model", {"batch_limit": 8}),
    ("one sample in each call of the model", {"batch_limit": 1}),
    ("weights left in the artifact's file", {"lean": True}),
    ("no pictures", {"previews": False}),
)


def next_smaller(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe keys to change next; empty at the bottom.

    >>> next_smaller(Recipe(batch_limit=1))
    {'previews': False}
    """
    for _, changes in RUNGS:
        if "lean" in changes and recipe.runtime != "onnx":
            continue
        if any(_is_larger(getattr(recipe, name), value) for name, value in changes.items()):
            return dict(changes)
    return {}


def _is_larger(value: Any, than: Any) -> bool:
    """Return whether a recipe's value needs more memory than a rung's; None sets no limit."""
    if isinstance(than, bool):
        return bool(value != than)
    return value is None or value > than


def words(changes: Mapping[str, Any]) -> str:
    """Return what a set of changes means, for people.

    >>> words({"batch_limit": 1, "lean": True})
    "one sample in each call of the model, weights left in the artifact's file"
    """
    return ", ".join(text for text, own in RUNGS if own.items() <= changes.items())
