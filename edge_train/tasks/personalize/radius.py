"""How far a word is moved to measure a slope."""

from edge_train.methods.exact import names_rate
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

# Of a start vector's root mean square. Rates that a user names were found at the smaller one.
_RADIUS, _RADIUS_WITH_RATE = 0.4, 0.1
# An artifact's smallest radius is that of the start word. Slopes shrink as the word is learned and
# rounding does not: at four times the radius they still correlate 0.9 with exact ones after 100
# exact steps, and 0.5 at the radius itself (`edge-train bench slopes`).
_ROOM_FOR_ROUNDING = 4.0


def wanted_radius(recipe: PersonalizeRecipe, smallest: float) -> float:
    """Return the relative radius at which slopes hold from the first step to the last.

    Args:
      smallest: below which the start word's slopes are rounding; 0: nobody knows.
    """
    if names_rate(recipe):
        return max(_RADIUS_WITH_RATE, smallest)
    return max(_RADIUS, _ROOM_FOR_ROUNDING * smallest)
