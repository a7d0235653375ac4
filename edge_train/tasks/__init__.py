"""What `--task` names: one folder each; recipes and jobs are asked for here."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_train.methods import declared_keys
from edge_train.recipe import Key, Recipe, beside, from_mapping, read_toml
from edge_train.registry import Registry, load
from edge_train.tasks.task import Task

if TYPE_CHECKING:
    from edge_train.tasks.job import Job

tasks: Registry[Task] = Registry("task", "edge_train.tasks", "TASK", folders=True)
DEFAULT = "personalize"


def task_of(recipe: Recipe) -> Task:
    """Return the task of a recipe."""
    return tasks.get(recipe.task)


def open_job(recipe: Recipe) -> "Job":
    """Return the job that a recipe describes: every word checked, every default filled in.

    Raises:
      InputError, ModelError: a word, size or model that cannot be used.
    """
    from edge_train.tasks.begun import begun_from

    job: Job = load(task_of(recipe).job)(begun_from(task_of(recipe), recipe))
    return job


def recipe_of(values: Mapping[str, Any], source: str) -> Recipe:
    """Return the recipe that `values` describe; its class is that of key `task`.

    Raises:
      InputError: an unknown task or key, or a wrong value; `source` is put before the sentence.
    """
    given = dict(values)
    kind = tasks.get(str(given.pop("task", DEFAULT))).recipe
    declared = kind.declared()
    others = [name for name in given if name not in declared and _is_default(name, given[name])]
    if others:  # a recipe of 0.1: it held the keys of all tasks, some of which this one has by now
        others += [
            name
            for name in given
            if name in declared
            and declared[name].choices
            and given[name] not in declared[name].choices
            and _is_default(name, given[name])
        ]
    for name in others:
        del given[name]
    return from_mapping(
        kind, given, source, own=declared_keys(), others=lambda n: _elsewhere(n, kind)
    )


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a TOML file; its data may lie beside it.

    Raises:
      InputError: the file is missing, not TOML, or holds an unknown key or a wrong value.
    """
    return beside(recipe_of(read_toml(path), str(path)), path.parent)


def _declaring(name: str) -> dict[str, Key]:
    """Return the key of this name of every task that has it."""
    every = {task.name: task.recipe.declared() for task in tasks.all().values()}
    return {task: keys[name] for task, keys in every.items() if name in keys}


def _is_default(name: str, value: Any) -> bool:
    found = _declaring(name).values()
    plain = tuple(value) if isinstance(value, list) else value
    return any(plain == key.default for key in found)


def _elsewhere(name: str, kind: type[Recipe]) -> str | None:
    """Return a sentence about a key of other tasks; None where no task has it."""
    found = _declaring(name)
    if not found:
        return None
    instead = {"photos": "data", "data": "photos"}.get(name)
    what = f"name {instead}" if instead in kind.declared() else "leave it out"
    return f"{name} is not read by task {kind.task!r}, only by {', '.join(found)}; {what}."
