"""What a run gives up, one thing at a time, when memory does not suffice.

Every task lists its savings, the cheapest first: `Task.savings`. A run walks down the list, and so
does `plan`; `plan --all` multiplies it. Once training began, no saving changes what is computed,
only how much of it at once: batches, noise, directions and rates stay. Engines round differently in
calls of another size, so a run that was made smaller is not bitwise the one that was not; the
journal's `resume` record says what it gave up. Before the first step, what the user left to `auto`
may be chosen smaller, too.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_train.recipe import Recipe
from edge_train.tasks import task_of
from edge_train.tasks.task import COSTS, Task, unread


def next_smaller(recipe: Recipe, asked: Recipe | None = None) -> dict[str, Any]:
    """Return the recipe keys to change next; empty where nothing is left to give up.

    Args:
      recipe: with every default filled in.
      asked: as it was before; what it leaves to `auto` may be chosen smaller, a method only by one
        that reads all keys it sets. None once training began: then nothing that is computed
        changes any more.
    """
    for saving in task_of(recipe).savings:
        if saving.only_auto and not (asked and getattr(asked, saving.key) == "auto"):
            continue
        if saving.when(recipe) and (step := saving.after(getattr(recipe, saving.key))):
            if asked and saving.key == "method" and unread(step[0], asked):
                continue  # it would be refused for a key that the user set
            return {saving.key: step[0]}
    return {}


def after_training(recipe: Recipe) -> dict[str, Any]:
    """Return what is left to give up when only the products are still to be made."""
    for saving in task_of(recipe).savings:
        if saving.costs == COSTS[-1] and (step := saving.after(getattr(recipe, saving.key))):
            return {saving.key: step[0]}
    return {}


def smallest(recipe: Recipe) -> Recipe:
    """Return a recipe that gave up all it can, its choices as they are."""
    while changes := next_smaller(recipe):
        recipe = replace(recipe, **changes)
    return recipe


def words(task: Task, changes: Mapping[str, Any]) -> str:
    """Return what a set of changes means, for people."""
    said = [
        text
        for saving in task.savings
        for value, text in saving.values
        if text and saving.key in changes and changes[saving.key] == value
    ]
    return ", ".join(dict.fromkeys(said))  # two savings may have a key in common, and its words
