"""What an unset key becomes, by task, method and preset."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_train.errors import InputError
from edge_train.recipe import _LAYERWISE, Recipe, _list

_FORWARD_ONLY: dict[str, Any] = {
    "steps": 2000,
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "samples": 16,
    "queries": 4,
    "sides": 1,
    "patience": 0,
}
# The paper's: one direction, both sides, absolute radius, plain steps at a constant rate.
_MEZO: dict[str, Any] = {
    "steps": 20_000,
    "learning_rate": 1e-6,
    "weight_decay": 0.0,
    "schedule": "constant",
    "samples": 16,
    "queries": 1,
    "sides": 2,
    "epsilon": 1e-3,
    "patience": 0,
}
# The usual ones for fine-tuning an encoder; not tuned here.
_EXACT_CLASSIFY: dict[str, Any] = {
    "steps": 500,
    "learning_rate": 5e-5,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "samples": 32,
    "evaluation_samples": 256,
    "evaluate_every": 50,
    "patience": 0,
}
# Scales are the papers' for fine-tuning where they name one (METHODS 3, 5 and 8).
_EXACT_OWN: dict[str, dict[str, Any]] = {
    "backprop": {},
    "adamw": {},
    "adamw8bit": {},
    "lora": {"learning_rate": 1e-3},
    "galore": {"rank": 8, "refresh_every": 200, "scale": 4.0},
    "q-galore": {"rank": 8, "refresh_every": 200, "scale": 4.0},
    "dct-adamw": {"rank": 32, "refresh_every": 1, "scale": 1.0},
    "apollo": {"rank": 32, "refresh_every": 200, "scale": 12.0},
    "apollo-mini": {"rank": 1, "refresh_every": 200, "scale": 32.0},
    "frugal": {"rank": 8, "refresh_every": 200, "scale": 0.1},
}
_EXACT_LANGUAGE: dict[str, Any] = {
    "steps": 300,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "samples": 8,
    "evaluation_samples": 16,
    "evaluate_every": 50,
    "patience": 0,
}
# Scales that make an update about as long as Adam's would be; a quarter of it for signs.
_OWN_LANGUAGE: dict[str, dict[str, Any]] = {
    "backprop": {},
    "adamw": {},
    "adamw8bit": {},
    "galore": {"rank": 64, "refresh_every": 50, "scale": 1.0},
    "q-galore": {"rank": 64, "refresh_every": 50, "scale": 1.0},
    "dct-adamw": {"rank": 64, "refresh_every": 1, "scale": 1.0},
    "apollo": {"rank": 64, "refresh_every": 50, "scale": 1.0},
    "apollo-mini": {"rank": 1, "refresh_every": 50, "scale": 128.0},
    "frugal": {"rank": 64, "refresh_every": 50, "scale": 0.25},
}
# What an unset key becomes, by task, method and preset. Those of personalize were measured with
# `edge-train bench personalize`; BENCHMARKS.md has the table.
_DEFAULTS: dict[tuple[str, str, str], dict[str, Any]] = {
    ("personalize", "zo", "default"): {
        "steps": 250,
        "relative_rate": 0.5,
        "schedule": "cosine",
        "samples": 1,
        "queries": 4,
        "sides": 1,
        "evaluation_samples": 16,
        "evaluate_every": 50,
        "patience": 0,
    },
    # The paper's settings: absolute units, constant rate, no slope check (METHODS 2.1).
    ("personalize", "zo", "zoodip"): {
        "steps": 30_000,
        "learning_rate": 5e-3,
        "schedule": "constant",
        "samples": 1,
        "queries": 2,
        "sides": 1,
        "epsilon": 1e-3,
        "window": (500, 900),
        "evaluation_samples": 16,
        "evaluate_every": 500,
        "patience": 0,
    },
    ("personalize", "backprop", "default"): {
        "steps": 100,
        "relative_rate": 0.2,
        "schedule": "cosine",
        "samples": 4,
        "evaluation_samples": 16,
        "evaluate_every": 25,
        "patience": 0,
    },
    **{
        ("classify", method, "default"): {**_EXACT_CLASSIFY, **own}
        for method, own in _EXACT_OWN.items()
    },
    **{
        ("language-model", method, "default"): {**_EXACT_LANGUAGE, **own}
        for method, own in _OWN_LANGUAGE.items()
    },
    ("classify", "zo", "default"): {
        **_FORWARD_ONLY,
        "evaluation_samples": 256,
        "evaluate_every": 100,
    },
    ("classify", "zo", "mezo"): {**_MEZO, "evaluation_samples": 256, "evaluate_every": 500},
    ("language-model", "zo", "default"): {
        **_FORWARD_ONLY,
        "evaluation_samples": 16,
        "evaluate_every": 100,
    },
    ("language-model", "zo", "mezo"): {**_MEZO, "evaluation_samples": 16, "evaluate_every": 500},
}
_FORWARD_ONLY_KEYS = ("queries", "sides", "epsilon")


def _auto_method(recipe: Recipe) -> str:
    """Return the best method that the engine can: the exact gradient, unless keys are about zo."""
    forward_only = recipe.runtime == "onnx" or recipe.preset != "default"
    asked = any(getattr(recipe, name) is not None for name in _FORWARD_ONLY_KEYS)
    return "zo" if forward_only or asked else "backprop"


def resolve(recipe: Recipe, model_defaults: Mapping[str, Any]) -> Recipe:
    """Return the recipe with every None that a run needs filled in.

    Args:
      model_defaults: keys that the model decides (window, resolution, guidance, prompts, ...).

    Raises:
      InputError: the preset does not exist for the method.
    """
    method = _auto_method(recipe) if recipe.method == "auto" else recipe.method
    if method in _LAYERWISE:
        raise InputError(
            f"method {method!r} trains a network block by block, which the runtimes of task "
            f"{recipe.task!r} cannot: they run the whole model at once. Use --method zo or "
            "backprop."
        )
    defaults = _DEFAULTS.get((recipe.task, method, recipe.preset))
    if (recipe.task, method, "default") not in _DEFAULTS:
        able = tuple(
            name for task, name, kind in _DEFAULTS if (task, kind) == (recipe.task, "default")
        )
        raise InputError(
            f"method {method!r} is not for task {recipe.task!r}, only {_list(able)}; see --method."
        )
    if defaults is None:
        able = tuple(task for task, _, preset in _DEFAULTS if preset == recipe.preset)
        raise InputError(
            f"preset {recipe.preset!r} is for task {_list(able)} with --method zo, not for "
            f"{recipe.task} with {method}."
        )
    quant = "none" if recipe.quant == "auto" else recipe.quant
    values: dict[str, Any] = {"method": method, "quant": quant}
    for name, value in {**model_defaults, **defaults}.items():
        named_other = name == "learning_rate" and recipe.relative_rate is not None
        if getattr(recipe, name) in (None, ()) and not named_other:
            values[name] = value
    return replace(recipe, **values)
