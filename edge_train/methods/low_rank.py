"""Update rules that remember a projection of an exact gradient, and what they do with the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edge_train.methods.exact import adam8bit_rule, adam_rule, of_rule
from edge_train.methods.method import Rule
from edge_train.recipe import Recipe, key, required

if TYPE_CHECKING:
    from edge_train.optim.adam8bit import Adam8bit
    from edge_train.optim.bases import Basis, TopVectors
    from edge_train.optim.transforms import Adam
    from edge_train.protocols import Transform

_ALIGNED = 2  # the version of rules from which on signs of vectors follow those before
After: TypeAlias = "tuple[Transform, ...]"


@dataclass(frozen=True, kw_only=True)
class RankKeys(Recipe):
    """The rank of low-rank updates and of adapters."""

    rank: int | None = key(help="rank of a low-rank update or of an adapter", low=1, high=65536)


@dataclass(frozen=True, kw_only=True)
class LowRankKeys(RankKeys):
    """Of low-rank updates, and of adapters."""

    refresh_every: int | None = key(
        help="steps between two refreshes of a low-rank basis; q-galore adapts it",
        flags=("--refresh-every", "--update_proj_gap"),
        low=1,
        high=10_000_000,
    )
    scale: float | None = key(
        help="factor of a low-rank update or an adapter; of frugal: of its sign updates",
        low=0,
        high=1e6,
    )
    basis: str | None = key(
        help="basis of galore and q-galore; auto: per layer, whichever keeps most of a gradient",
        choices=("svd", "dct", "columns", "auto"),
    )
    project_head: bool = key(
        False,
        help="treat an output layer like any other matrix; the default is Adam's update, as in the "
        "papers",
    )


def _keys(recipe: Recipe) -> tuple[int, int, float]:
    """Return rank, steps between two bases and scale."""
    assert isinstance(recipe, LowRankKeys)
    return required(recipe.rank), required(recipe.refresh_every), required(recipe.scale)


def _galore(recipe: Recipe, after: After) -> Transform:
    return _by_top_vectors(recipe, after, adaptive=False)


def _q_galore(recipe: Recipe, after: After) -> Transform:
    return _by_top_vectors(recipe, after, adaptive=True)


def _by_top_vectors(recipe: Recipe, after: After, *, adaptive: bool) -> Transform:
    """Return GaLore's rule; adaptive: with 8-bit moments, packed vectors and lazy refreshes.

    Moments are turned at a refresh where they may belong to indices: else those of a column that
    left would go to another one.
    """
    from edge_train.optim.adam8bit import Adam8bit
    from edge_train.optim.bases import TopVectors
    from edge_train.optim.low_rank import LowRank
    from edge_train.optim.transforms import Adam

    assert isinstance(recipe, LowRankKeys)
    rank, every, scale = _keys(recipe)
    adam = Adam8bit(seed=recipe.seed) if adaptive else Adam()
    basis = recipe.basis or "svd"
    top = TopVectors(rank, recipe.seed, packed=adaptive, aligned=recipe.rules >= _ALIGNED)
    vectors = _basis(basis, top)
    moments: Literal["keep", "rotate"] = "keep" if basis == "svd" else "rotate"
    return _apart(LowRank(adam, vectors, every, scale, moments, adaptive), adam, after)


def _fira(recipe: Recipe, after: After) -> Transform:
    """Return Fira's rule: GaLore's, and what the vectors leave, as long as Adam would make it."""
    from edge_train.optim.bases import TopVectors
    from edge_train.optim.low_rank import LowRank
    from edge_train.optim.transforms import Adam

    rank, every, scale = _keys(recipe)
    adam, top = Adam(), TopVectors(rank, recipe.seed)
    low_rank = LowRank(adam, top, every, scale, remainder=1.0, remainder_by="length")
    return _apart(low_rank, adam, after)


def _sumo(recipe: Recipe, after: After) -> Transform:
    """Return SUMO's rule: an orthogonal momentum in the vectors, the raw gradient beside them."""
    from edge_train.optim.bases import TopVectors
    from edge_train.optim.low_rank import LowRank
    from edge_train.optim.orthogonal import OrthogonalMomentum
    from edge_train.optim.transforms import Adam

    rank, every, scale = _keys(recipe)
    adam, top = Adam(), TopVectors(rank, recipe.seed)
    low_rank = LowRank(
        OrthogonalMomentum(),
        top,
        every,
        scale,
        moments="rotate",
        remainder=1.0,
        remainder_by="sgd",
        plain=adam,
    )
    return _apart(low_rank, adam, after)


def _dct_adamw(recipe: Recipe, after: After) -> Transform:
    from edge_train.optim.bases import Columns
    from edge_train.optim.low_rank import LowRank
    from edge_train.optim.transforms import Adam

    rank, every, scale = _keys(recipe)
    adam, cosines = Adam(), Columns(rank, of="dct")
    return _apart(LowRank(adam, cosines, every, scale, moments="rotate"), adam, after)


def _frugal(recipe: Recipe, after: After) -> Transform:
    """Return FRUGAL's rule; the scale is the size of the sign update beside Adam's."""
    from edge_train.optim.bases import Columns
    from edge_train.optim.low_rank import LowRank
    from edge_train.optim.transforms import Adam

    rank, every, scale = _keys(recipe)
    adam, chance = Adam(), Columns(rank, by="chance", seed=recipe.seed)
    return _apart(LowRank(adam, chance, every, moments="reset", remainder=scale), adam, after)


def _gradnormlorp(recipe: Recipe, after: After) -> Transform:
    from edge_train.optim.transforms import Adam

    return _by_weight_norm(recipe, after, Adam())


def _gradnormlorp8bit(recipe: Recipe, after: After) -> Transform:
    from edge_train.optim.adam8bit import Adam8bit

    return _by_weight_norm(recipe, after, Adam8bit(seed=recipe.seed))


def _by_weight_norm(recipe: Recipe, after: After, adam: Adam | Adam8bit) -> Transform:
    """Return GradNormLoRP's rule: directions of rows as GaLore has matrices, lengths by Adam."""
    from edge_train.optim.bases import TopVectors
    from edge_train.optim.low_rank import LowRank, MatricesApart
    from edge_train.optim.transforms import Adam as Plain
    from edge_train.optim.transforms import Chain
    from edge_train.optim.weight_norm import WeightNorm

    rank, every, scale = _keys(recipe)
    directions = LowRank(adam, TopVectors(rank, recipe.seed), every, scale)
    rows = WeightNorm(Chain((directions, *after)), Chain((Plain(), *after)), rank)
    return MatricesApart(rows, Chain((adam, *after)))


def _apollo(recipe: Recipe, after: After) -> Transform:
    return _by_lengths(recipe, after, "rows")


def _apollo_mini(recipe: Recipe, after: After) -> Transform:
    return _by_lengths(recipe, after, "tensor")


def _by_lengths(recipe: Recipe, after: After, by: Literal["rows", "tensor"]) -> Transform:
    """Return APOLLO's rule; the root of the scale is taken, as in the paper."""
    from edge_train.optim.apollo import Apollo
    from edge_train.optim.bases import RandomVectors
    from edge_train.optim.transforms import Adam

    rank, every, scale = _keys(recipe)
    adam = Adam()
    vectors = RandomVectors(rank, recipe.seed)
    return _apart(Apollo(adam, vectors, every, math.sqrt(scale), by), adam, after)


def _apart(matrices: Transform, others: Transform, after: After) -> Transform:
    """Return a rule for the matrices of layers, and another for embeddings, vectors and heads."""
    from edge_train.optim.low_rank import MatricesApart
    from edge_train.optim.transforms import Chain

    return MatricesApart(Chain((matrices, *after)), Chain((others, *after)))


def _basis(name: str, top: TopVectors) -> Basis:
    """Return the basis that users call `name`, of as many vectors as the top ones."""
    from edge_train.optim.bases import Columns
    from edge_train.optim.basis_choice import ByCapture

    makers: dict[str, Any] = {
        "svd": lambda: top,
        "dct": lambda: Columns(top.rank, of="dct"),
        "columns": lambda: Columns(top.rank),
        "auto": lambda: ByCapture(top),
    }
    made: Basis = makers[name]()
    return made


_READS = ("rank", "refresh_every", "scale", "project_head")
RULES = (
    Rule(
        name="galore",
        says="Adam in the top singular vectors of the gradient",
        build=_galore,
        head=adam_rule,
        reads=(*_READS, "basis"),
        projects=True,
    ),
    Rule(
        name="q-galore",
        says="galore with 8-bit moments, 4-bit vectors and lazy refreshes",
        build=_q_galore,
        head=adam8bit_rule,
        reads=(*_READS, "basis"),
        projects=True,
    ),
    Rule(
        name="gradnormlorp",
        says="rows as lengths times directions: Adam on lengths, galore on directions",
        build=_gradnormlorp,
        head=adam_rule,
        reads=_READS,
        projects=True,
        row_sums=1,
    ),
    Rule(
        name="gradnormlorp8bit",
        says="gradnormlorp with moments in 8 bits",
        build=_gradnormlorp8bit,
        head=adam8bit_rule,
        reads=_READS,
        projects=True,
        row_sums=1,
    ),
    Rule(
        name="fira",
        says="galore, and what its vectors leave, as long as Adam would make it",
        build=_fira,
        head=adam_rule,
        reads=_READS,
    ),
    Rule(
        name="sumo",
        says="an orthogonal momentum in the top singular vectors, the raw gradient beside them",
        build=_sumo,
        head=adam_rule,
        reads=_READS,
    ),
    Rule(
        name="dct-adamw",
        says="Adam in columns of a cosine transform, without error feedback",
        build=_dct_adamw,
        head=adam_rule,
        reads=_READS,
        projects=True,
    ),
    Rule(
        name="apollo",
        says="the raw gradient, its rows as long as Adam's update",
        build=_apollo,
        head=adam_rule,
        reads=_READS,
    ),
    Rule(
        name="apollo-mini",
        says="the raw gradient, as long as Adam's update",
        build=_apollo_mini,
        head=adam_rule,
        reads=_READS,
    ),
    Rule(
        name="frugal",
        says="Adam in random columns, signs in the rest",
        build=_frugal,
        head=adam_rule,
        reads=_READS,
    ),
)
METHODS = tuple(map(of_rule, RULES))
