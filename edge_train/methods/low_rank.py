"""Exact gradients, and update rules that remember little of them: chains as users name them."""

import math
from typing import Literal

from edge_train.optim.adam8bit import Adam8bit
from edge_train.optim.apollo import Apollo
from edge_train.optim.bases import Basis, Columns, RandomVectors, TopVectors
from edge_train.optim.basis_choice import ByCapture
from edge_train.optim.low_rank import LowRank, MatricesApart
from edge_train.optim.transforms import Adam, Chain
from edge_train.protocols import Transform


def low_rank(
    name: str,
    rank: int,
    refresh_every: int,
    scale: float,
    seed: int,
    after: tuple[Transform, ...],
    basis: str | None = None,
) -> MatricesApart:
    """Return the update rule that users call `name`.

    Args:
      rank: vectors of a basis.
      refresh_every: steps; of q-galore the interval at the start.
      scale: of the update (GaLore's alpha; of APOLLO its root is taken, as in the paper), of
        frugal the size of the sign update beside Adam's.
      after: links that follow for every block: weight decay, rate.
      basis: of galore and q-galore: svd (the same as None), dct, columns, or auto. Moments are
        turned at a refresh where they may belong to indices: else those of a column that left
        would go to another one.
    """
    adam = Adam8bit() if name == "q-galore" else Adam()
    matrices: Transform
    if name in ("galore", "q-galore"):
        adaptive = name == "q-galore"
        vectors = _basis(basis or "svd", TopVectors(rank, seed, packed=adaptive))
        moments: Literal["keep", "rotate"] = "keep" if basis in (None, "svd") else "rotate"
        matrices = LowRank(adam, vectors, refresh_every, scale, moments, adaptive)
    elif name == "dct-adamw":
        cosines = Columns(rank, of="dct")
        matrices = LowRank(adam, cosines, refresh_every, scale, moments="rotate")
    elif name == "frugal":
        chance = Columns(rank, by="chance", seed=seed)
        matrices = LowRank(adam, chance, refresh_every, moments="reset", remainder=scale)
    else:
        grown = math.sqrt(scale)
        by: Literal["rows", "tensor"] = "tensor" if name == "apollo-mini" else "rows"
        matrices = Apollo(adam, RandomVectors(rank, seed), refresh_every, grown, by)
    return MatricesApart(Chain((matrices, *after)), Chain((adam, *after)))


def _basis(name: str, top: TopVectors) -> Basis:
    """Return the basis that users call `name`, of as many vectors as the top ones."""
    if name == "auto":
        return ByCapture(top)
    if name == "dct":
        return Columns(top.rank, of="dct")
    return Columns(top.rank) if name == "columns" else top
