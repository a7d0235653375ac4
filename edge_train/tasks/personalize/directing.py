"""Directions of a run that forward passes train: everywhere, or those that lie beside the model."""

from collections.abc import Mapping
from dataclasses import replace

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError
from edge_train.formats.artifact import Artifact
from edge_train.formats.token_directions import (
    DIRECTIONS,
    kinds_of,
    read_directions,
)
from edge_train.methods import methods
from edge_train.methods.exact import names_rate
from edge_train.tasks.personalize.recipe import ISOTROPIC, METRIC, PersonalizeRecipe
from edge_train.tasks.personalize.serving import Model, hashes_of

METRIC_STEPS = 100  # then a word is near, and what the metric leaves out is what it lacks
# Numbers of a vector up to which the isotropic steps of a run are some directions for each. Of more
# they are few, and move a word where the model's answers stay the same: `bench forwards`.
_NARROW = 256
# Versions of rules from which on the metric is a default and ends, and ends for narrow ones only.
_METRIC_FIRST, _NARROW_FROM = 3, 7


def has_directions(model: Model) -> bool:
    """Return whether a file of directions lies beside a model, and belongs to it."""
    if isinstance(model, Artifact):
        return DIRECTIONS in model.manifest.files
    return (model.path / DIRECTIONS).is_file()


def with_directions(recipe: PersonalizeRecipe, model: Model) -> PersonalizeRecipe:
    """Return a recipe that says what zo draws from, where nobody did: the metric, if it is there.

    Steps that have a rate, as those of presets do, and runs that began by earlier rules draw from
    all directions there are.

    Raises:
      ModelError: the file beside the model is damaged.
    """
    reads = "directions" in methods.get(recipe.method).reads
    free = reads and recipe.preset == "default" and not recipe.adapts
    asked = recipe.directions is not None or names_rate(recipe)
    if asked or not free or recipe.rules < _METRIC_FIRST:
        return recipe
    known = has_directions(model) and METRIC in kinds_of(model.path / DIRECTIONS)
    return replace(recipe, directions=METRIC if known else ISOTROPIC)


def span_steps(recipe: PersonalizeRecipe, start: Mapping[str, Array]) -> int | None:
    """Return how many steps draw from a matrix before others are isotropic; None: all do.

    Args:
      start: the blocks that are trained.
    """
    if recipe.directions != METRIC or recipe.rules < _METRIC_FIRST:
        return None
    wide = max(block.shape[-1] for block in start.values()) > _NARROW
    return None if wide and recipe.rules >= _NARROW_FROM else METRIC_STEPS


def said_of_directions(
    given: PersonalizeRecipe, recipe: PersonalizeRecipe, start: Mapping[str, Array], model: Model
) -> list[str]:
    """Return a line about where a run's directions come from, or could come from.

    Args:
      given: the recipe as a user wrote it.
      start: the blocks that are trained.
    """
    if recipe.directions == METRIC:
        steps = span_steps(recipe, start)
        of, then = (f" of the first {steps} steps", ", then all there are") if steps else ("", "")
        said = f"directions{of} are what words respond to, as {DIRECTIONS} beside the model says"
        return [said + then]
    if recipe.directions == ISOTROPIC and given.directions is None:
        source = "MODEL" if isinstance(model, Artifact) else recipe.model
        return [
            "directions are all there are; a word is near sooner along what words respond to, as "
            f"`edge-train export {source} OUT --directions` measures it with torch"
        ]
    return []


def directions_of(
    recipe: PersonalizeRecipe, model: Model, start: Mapping[str, Array]
) -> dict[str, Array]:
    """Return the matrices that directions are drawn from, by block; none: they are isotropic.

    Args:
      start: the blocks that are trained.

    Raises:
      InputError: a preset or a LoRA has directions of its own, or the model has no such file.
      ModelError: the file is damaged or of another model, or its widths are others.
    """
    kind = recipe.directions
    if kind in (None, ISOTROPIC):
        return {}
    assert kind is not None
    if recipe.preset != "default" or recipe.adapts:
        what = "--trainable lora" if recipe.adapts else f"preset {recipe.preset!r}"
        raise InputError(f"{what} draws isotropic directions; leave --directions {kind} out.")
    if not has_directions(model):
        raise InputError(
            f"directions {kind!r} need {DIRECTIONS} beside the model, and {recipe.model} has none; "
            "make it with `edge-train export`, or use --directions isotropic."
        )
    path = model.path / DIRECTIONS
    own = isinstance(model, Artifact)
    found = read_directions(path, kind, hashes_of(model)[0])
    for name, block in start.items():
        width = found[name].shape[1] if name in found else None
        if width != block.shape[1]:
            again = "export it again" if own else "make it again"
            raise ModelError(
                f"{path}: {kind}/{name} is {'missing' if width is None else f'{width} wide'}, the "
                f"model's vectors have {block.shape[1]} numbers; {again}."
            )
    return {name: found[name] for name in start}
