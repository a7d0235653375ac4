"""Update rules that remember next to nothing of an exact gradient: it is scaled by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from edge_train.methods.exact import adam_rule, of_rule
from edge_train.methods.method import Rule
from edge_train.recipe import Recipe

if TYPE_CHECKING:
    from edge_train.protocols import Transform

After: TypeAlias = "tuple[Transform, ...]"
_MOMENTUM = 0.9  # of SCALE's output layer


def _scale_sgd(_: Recipe, after: After) -> Transform:
    """Return SCALE's rule: rows of layers, coordinates of a table of tokens."""
    from edge_train.optim.low_rank import MatricesApart
    from edge_train.optim.normalized import Normalized
    from edge_train.optim.transforms import Chain

    layers, tables = Normalized(), Normalized(by="columns")
    return MatricesApart(Chain((layers, *after)), Chain((tables, *after)))


def _scale_sgd_head(recipe: Recipe, after: After) -> Transform:
    """Return that of the output layer: the same with momentum; a tied one is a table, too."""
    from edge_train.optim.low_rank import MatricesApart
    from edge_train.optim.normalized import Normalized
    from edge_train.optim.transforms import Chain

    own = Normalized(momentum=_MOMENTUM, seed=recipe.seed)
    tied = Normalized(by="columns", momentum=_MOMENTUM, seed=recipe.seed)
    return MatricesApart(Chain((own, *after)), Chain((tied, *after)))


def _racs(_: Recipe, after: After) -> Transform:
    from edge_train.optim.low_rank import MatricesApart
    from edge_train.optim.racs import Racs
    from edge_train.optim.transforms import Adam, Chain

    return MatricesApart(Chain((Racs(), *after)), Chain((Adam(), *after)))


RULES = (
    Rule(
        name="scale-sgd",
        says="the raw gradient, its rows as long as each other; momentum for the output layer",
        build=_scale_sgd,
        head=_scale_sgd_head,
    ),
    Rule(
        name="racs",
        says="the raw gradient, scaled by one number a row and one a column",
        build=_racs,
        head=adam_rule,
    ),
)
METHODS = tuple(map(of_rule, RULES))
