"""The reference of the Python names: signatures and first sentences, made from the code."""

import inspect
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

import edge_train


def page(note: str) -> str:
    """Return the page; it imports every public name, and no engine."""
    public = {name: _found(name) for name in edge_train.__all__ if name != "__version__"}
    parts = [
        f"{note}# Python\n",
        "`import edge_train as et`. A name that is not on this page is private and may change "
        "without a word. [python.md](../python.md) shows how they are used.\n",
        "## Functions\n",
    ]
    for name, one in public.items():
        if inspect.isfunction(one):
            parts.append(_function(f"et.{name}", one))
    parts.append("## A run\n")
    run = public["Run"]
    parts.append(f"`et.Run`: {_sentence(run)}\n")
    rows = []
    for name, one in vars(run).items():
        if name.startswith("_"):
            continue
        if isinstance(one, property):
            rows.append(f"- `{name}`: {_sentence(one)}")
        elif inspect.isfunction(one):
            rows.append(f"- `{name}{_signature(one, without_self=True)}`: {_sentence(one)}")
    parts += ["- `folder`: where it is.\n" + "\n".join(rows) + "\n", "## Recipes\n"]
    parts.append("Their keys are those of [recipe.md](recipe.md), each a keyword.\n")
    parts += [
        f"- `et.{name}`: {_sentence(one)}" for name, one in public.items() if is_dataclass(one)
    ]
    parts += ["", "## Errors\n"]
    for name, one in public.items():
        if inspect.isclass(one) and issubclass(one, Exception):
            parts.append(f"- `et.{name}` ({one.__mro__[1].__name__}): {_sentence(one)}")
    parts += ["", "## Parts\n"]
    for name, one in public.items():
        if isinstance(one, ModuleType):
            inside = ", ".join(f"`{inner}`" for inner in one.HOMES)
            parts.append(f"- `et.{name}`: {inside}. {_sentence(one)}")
    return "\n".join(parts) + "\n"


def _found(name: str) -> Any:
    """Return a public name as a program gets it, whatever folders were imported meanwhile."""
    return edge_train.public(name)


def _function(name: str, function: Any) -> str:
    return f"`{name}{_signature(function)}`\n\n{_sentence(function)}\n"


def _signature(function: Any, *, without_self: bool = False) -> str:
    """Return the parameters by name, with their defaults; types are in the editor."""
    found = list(inspect.signature(function).parameters.values())[1 if without_self else 0 :]
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found]
    return str(inspect.Signature(bare))


def _sentence(thing: Any) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
