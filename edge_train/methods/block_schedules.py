"""A few layers at a time are trained, drawn anew every so often: LISA and OwLore."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from edge_train.errors import InputError
from edge_train.methods.choosing import Schedule
from edge_train.recipe import required
from edge_train.recipe.key import Key

if TYPE_CHECKING:
    from edge_train.optim.layer_draws import LayerDraws
    from edge_train.protocols import BlockSchedule
    from edge_train.recipe import Recipe

_LAYER = re.compile(r"((?:.*?\.)?\d+)\.")
_BATCHES = 4  # of the data, from which inputs are measured
_NAMED = 3  # of layers that a sentence is about
_FLOOR = 0.1  # share of the odds that all layers have alike: outliers may be nowhere

_LAYERS = Key(
    "sampled_layers",
    int,
    "layers that are trained at a time, by a block schedule that draws them",
    low=1,
    high=100_000,
)
_EVERY = Key(
    "resample_every",
    int,
    "steps after which other layers are drawn",
    default=50,
    low=1,
    high=1_000_000,
)
_OUTLIER = Key(
    "outlier_times",
    float,
    "times the mean from which a product of weight and input is an outlier, of owlore",
    default=13.0,
    low=1.0,
    high=1e6,
)


def layer_of(name: str) -> str | None:
    """Return the layer of a block, None for one that stands outside of all (tables, heads, norms).

    >>> layer_of("model.layers.3.mlp.up_proj.weight"), layer_of("lm_head.weight")
    ('model.layers.3', None)
    """
    found = _LAYER.match(name)
    return found.group(1) if found else None


def _held(recipe: Recipe, sizes: Mapping[str, int]) -> int:
    """Return the bytes of what always has a state, and of the largest layers that may at once."""
    layers: dict[str | None, int] = {}
    for name, size in sizes.items():
        layers[layer_of(name)] = layers.get(layer_of(name), 0) + size
    always = layers.pop(None, 0)
    _check_count(recipe, len(layers))
    return always + sum(sorted(layers.values())[-recipe.options["sampled_layers"] :])


def _check_count(recipe: Recipe, layers: int) -> None:
    count = recipe.options["sampled_layers"]
    if count > layers:
        raise InputError(
            f"--sampled-layers {count}: what is trained has {layers} layers; take at most "
            f"{layers}, or leave --block-schedule out."
        )


def _build(recipe: Recipe, blocks: Collection[str], measured: Mapping[str, float]) -> BlockSchedule:
    from edge_train.optim.layer_draws import LayerDraws

    found = {layer: None for layer in map(layer_of, blocks) if layer is not None}
    _check_count(recipe, len(found))
    total = sum(measured.get(layer, 0.0) for layer in found)
    odds = {
        layer: (
            (1 - _FLOOR) * measured.get(layer, 0.0) / total + _FLOOR / len(found)
            if total > 0
            else 1 / len(found)
        )
        for layer in found
    }
    return LayerDraws(
        layer_of,
        {layer: math.log(share) for layer, share in odds.items()},
        recipe.options["sampled_layers"],
        recipe.options["resample_every"],
        recipe.seed,
    )


def _warns(recipe: Recipe, built: LayerDraws) -> str | None:
    """Return a sentence where layers get no turn in all steps: that is known before the first."""
    steps = required(recipe.steps)
    never = built.never_trained(steps)
    if not never:
        return None
    named = ", ".join(never[:_NAMED]) + (", ..." if len(never) > _NAMED else "")
    return (
        f"block schedule {recipe.block_schedule}: {len(never)} layers get no turn in {steps} steps "
        f"and stay as they are ({named}); a smaller --resample-every or more --sampled-layers "
        "gives them one"
    )


def _outliers(recipe: Recipe, runtime: Any, task: Any) -> tuple[Mapping[str, float], int]:
    from edge_train.optim.outliers import layer_scores
    from edge_train.protocols import TellsInputs
    from edge_train.rng import Key as Draw

    if not isinstance(runtime, TellsInputs):
        raise InputError(
            f"--block-schedule owlore needs the inputs of layers, which {recipe.runtime} does not "
            "tell for what is trained here; use --block-schedule lisa."
        )
    found: dict[str, Any] = {}
    for number in range(_BATCHES):
        for name, (squares, transposed) in runtime.inputs(task.batch(Draw(recipe.seed, number))):
            before = found.get(name, (0.0, transposed))[0]
            found[name] = before + squares, transposed
    scores = layer_scores(runtime.parameters, found, layer_of, recipe.options["outlier_times"])
    return scores, _BATCHES * required(recipe.samples)


SCHEDULES = (
    Schedule(
        name="lisa",
        says="some layers at a time, each as likely; tables, heads and norms outside always",
        build=_build,
        warns=_warns,
        held=_held,
        keys=(_LAYERS, _EVERY),
        defaults={"sampled_layers": 2},
    ),
    Schedule(
        name="owlore",
        says="as lisa, layers with more outliers more often",
        build=_build,
        measure=_outliers,
        warns=_warns,
        held=_held,
        keys=(_LAYERS, _EVERY, _OUTLIER),
        defaults={"sampled_layers": 5},
    ),
)
