"""Train on the device, inside a byte budget the user names.

`import edge_train as et` costs the standard library only: a name below is imported when it is used.
"""

from importlib import import_module

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

# Every public name and where it lives; type checkers read `__init__.pyi`, and a test compares.
_HOMES = {
    "run": "edge_train.api.running:run",
    "resume": "edge_train.api.running:resume",
    "fit": "edge_train.api.fitting:fit",
    "plan": "edge_train.api.commands:plan",
    "export": "edge_train.api.commands:export",
    "generate": "edge_train.api.commands:generate",
    "Run": "edge_train.api.running:Run",
    "PersonalizeRecipe": "edge_train.tasks.personalize.recipe:PersonalizeRecipe",
    "ClassifyRecipe": "edge_train.tasks.classify.recipe:ClassifyRecipe",
    "LanguageModelRecipe": "edge_train.tasks.language_model.recipe:LanguageModelRecipe",
    "ImagesRecipe": "edge_train.tasks.images.recipe:ImagesRecipe",
    "NetworkRecipe": "edge_train.tasks.network.recipe:NetworkRecipe",
    "RetrieveRecipe": "edge_train.tasks.retrieve.recipe:RetrieveRecipe",
    "EdgeTrainError": "edge_train.errors:EdgeTrainError",
    "InputError": "edge_train.errors:InputError",
    "ModelError": "edge_train.errors:ModelError",
    "RunFolderError": "edge_train.errors:RunFolderError",
    "TrainingStopped": "edge_train.errors:TrainingStopped",
    "OutOfMemory": "edge_train.errors:OutOfMemory",
    "optim": "edge_train.optim",
    "estimators": "edge_train.estimators",
    "runtimes": "edge_train.runtimes",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the keys are names


def __getattr__(name: str) -> "Any":
    """Return a public name, imported now.

    Raises:
      AttributeError: there is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_train' has no attribute {name!r}")
    found = globals()[name] = public(name)
    return found


def public(name: str) -> "Any":
    """Return a public name; `run` and `export` stay functions, though folders are called so, too.

    Raises:
      KeyError: there is no such name.
    """
    module, _, attribute = _HOMES[name].partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> "list[str]":
    """Return every public name, for completion."""
    return sorted({*globals(), *_HOMES})
