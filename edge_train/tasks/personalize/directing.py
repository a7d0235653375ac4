"""Directions of a run that forward passes train: everywhere, or those that lie beside the model."""

from collections.abc import Mapping

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError
from edge_train.formats.artifact import Artifact
from edge_train.formats.token_directions import DIRECTIONS, read_directions
from edge_train.tasks.personalize.recipe import ISOTROPIC, PersonalizeRecipe
from edge_train.tasks.personalize.serving import Model, hashes_of


def has_directions(model: Model) -> bool:
    """Return whether a file of directions lies beside a model, and belongs to it."""
    if isinstance(model, Artifact):
        return DIRECTIONS in model.manifest.files
    return (model.path / DIRECTIONS).is_file()


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
