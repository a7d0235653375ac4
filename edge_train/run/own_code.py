"""Code that a recipe names: imported by a resumed run only if its caller names it again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_train.errors import RunFolderError
from edge_train.recipe import Recipe
from edge_train.units import shown


def named_code(recipe: Recipe) -> dict[str, str]:
    """Return the keys of a recipe that name code, and their values."""
    keys = recipe.declared()
    found = {name: getattr(recipe, name) for name, key in keys.items() if key.is_code}
    return {name: value for name, value in found.items() if value is not None}


def without_code(folder: Path, recipe: Recipe, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes in a run that is resumed, less the code that its caller named again.

    A run folder may come from somebody else, and an import runs what it imports: the recipe in the
    folder alone never decides what is imported.

    Raises:
      RunFolderError: the run imports code that was not named, or other code was named.
    """
    stored = named_code(recipe)
    for name, value in stored.items():
        given = changes.get(name)
        if given != value:
            other = "" if given is None else f", not {shown(given)}"
            raise RunFolderError(
                f"{folder}: this run imports {name} = {shown(value)}{other}, and a run folder "
                "alone does not decide what is imported. If you trust that code, type "
                f"`edge-train run --resume {folder} --{name} {value}`, or "
                f"et.resume(..., {name}={shown(value)})."
            )
    known = recipe.declared()
    for name in changes:
        if name not in stored and (name not in known or known[name].is_code):
            raise RunFolderError(
                f"{folder}: this run imports no code by its name; leave --{name} out."
            )
    return {name: value for name, value in changes.items() if name not in stored}


def code_words(recipe: Recipe) -> list[str]:
    """Return the words that name the code of a recipe beside `--resume`."""
    return [f"--{name}={value}" for name, value in named_code(recipe).items()]
