"""Recipes of any task by its name, for tests that compare tasks."""

from edge_train.methods import methods, rules
from edge_train.methods.method import Parts
from edge_train.tasks import tasks


def recipe_for(task="personalize", **keys):
    """Return a recipe of a task with these keys."""
    return tasks.get(task).recipe(**keys)


def resolved(task="personalize", engine=None, defaults=(), known=False, **keys):
    """Return such a recipe with every default filled in; the engine is the task's first.

    Args:
      known: its model has weights.
    """
    record = tasks.get(task)
    return record.resolve(
        recipe_for(task, **keys),
        engine or next(iter(record.uses)),
        dict(defaults),
        pretrained=known,
    )


def transform_of(method, task="language-model", **keys):
    """Return the update rule of a method, built from these keys."""
    recipe = recipe_for(task, method=method, **keys)
    return methods.get(method).build(recipe, Parts())[1]


def rule_of(name, **keys):
    """Return an update rule alone, with nothing after it: neither decay nor rate."""
    return rules.get(name).build(recipe_for("language-model", method=name, **keys), ())
