"""Whether a run is one of those that `edge-train bench personalize` measured."""

from edge_train.formats.embedded import EMBEDDED
from edge_train.tasks.personalize.parts import check
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

_NO_QUALITY = ("memory", "pictures", "run")  # groups of keys that do not change what is learned
_SPELLED_AS_ONE_LIKES = {"token", "threads", "device"}


def as_measured(recipe: PersonalizeRecipe) -> bool:
    """Return whether a recipe is the default of its way, on the embedded model and its photos.

    Args:
      recipe: with its defaults filled in.
    """
    if recipe.model != EMBEDDED or recipe.photos is not None or recipe.options:
        return False
    ways = ("method", "trainable", "runtime", "quant")
    usual = check(PersonalizeRecipe(**{name: getattr(recipe, name) for name in ways})).recipe
    return all(
        getattr(recipe, name) == getattr(usual, name)
        for name, one in recipe.declared().items()
        if name == "time_seconds" or not (one.group in _NO_QUALITY or name in _SPELLED_AS_ONE_LIKES)
    )
