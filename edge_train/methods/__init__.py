"""What `--method` names: methods, and update rules, each of which is a method, too."""

from collections.abc import Callable, Mapping
from functools import partial

from edge_train.methods.choosing import Held, Schedule, Selection
from edge_train.methods.exact import of_rule
from edge_train.methods.method import Method, Rule
from edge_train.recipe import Key, Recipe
from edge_train.registry import Registry


class _Methods(Registry[Method]):
    """Methods; a rule that another package registers is one, too."""

    def all(self) -> dict[str, Method]:
        found = super().all()
        for rule in rules.all().values():
            if rule.name not in found:
                found[rule.name] = of_rule(rule)
        return found


methods: Registry[Method] = _Methods("method", "edge_train.methods", "METHODS")
rules: Registry[Rule] = Registry("rule", "edge_train.methods", "RULES")
selections: Registry[Selection] = Registry("batch selection", "edge_train.methods", "SELECTIONS")
schedules: Registry[Schedule] = Registry("block schedule", "edge_train.methods", "SCHEDULES")


def declared_keys() -> dict[str, Key]:
    """Return the keys that methods, rules, selections and schedules declare themselves."""
    records: list[Method | Selection | Schedule] = [
        *methods.all().values(),
        *selections.all().values(),
        *schedules.all().values(),
    ]
    return {key.name: key for record in records for key in record.keys}


def held_at_once(recipe: Recipe) -> Callable[[Mapping[str, int]], int] | None:
    """Return what makes bytes of state that exist at once of those of every block; None: all do."""
    if recipe.block_schedule is None:
        return None
    held = schedules.get(recipe.block_schedule).held
    return None if held is None else partial(held, recipe)


def drawn_samples(recipe: Recipe) -> int:
    """Return how many samples a task draws for a step, of which `samples` are trained."""
    if recipe.batch_selection is None:
        return recipe.samples or 1
    return selections.get(recipe.batch_selection).drawn(recipe)


def scored_samples(recipe: Recipe) -> int:
    """Return how many samples a step passes through the model to choose those that it trains."""
    return selections.get(recipe.batch_selection).passes(recipe) if recipe.batch_selection else 0


def selection_bytes(recipe: Recipe, shape: tuple[int, int], rows: int) -> Held:
    """Return the bytes of a batch selection; none where there is none.

    Args:
      shape: outputs and inputs of the model's last layer.
      rows: that it computes for each sample.
    """
    if recipe.batch_selection is None:
        return Held()
    return selections.get(recipe.batch_selection).held(recipe, shape, rows)
