"""Which basis a matrix gets: the cheapest one that keeps about as much as the best one does."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import Gradient
from edge_train.arrays.types import Array, State
from edge_train.optim.bases import Basis, Columns, TopVectors, captured

NAMES = ("columns", "dct", "svd")  # from the cheapest on; a state holds the place of one
_CAPTURE_ENOUGH = 0.95  # of what the top vectors keep


@dataclass(frozen=True)
class ByCapture:
    """Columns, cosines or top vectors, by what each keeps of the first gradient.

    The share of a gradient's energy that a basis keeps is measured for all three at the first
    refresh. Columns are taken where they keep 95 % of what the top vectors do, else cosines where
    these do, else the vectors. The choice stays: with indices, later refreshes sum squares of
    columns instead of looking for vectors, and no vector is stored. Bytes are those of the vectors
    and of the indices, since a plan cannot know which it will be; vectors that are not used are
    never written, so most systems do not give them memory.

    Random vectors are no candidate: in expectation they keep rank / width of a gradient, the best
    of as many columns or cosines never less.

    Args:
      top: the best basis, as it is stored: packed vectors are measured packed.

    Source: a gradient with outlier columns is kept by columns, one that is smooth from column to
    column by cosines, others by neither; which one a layer has is not known beforehand. The rule is
    ours; GaLore (arXiv:2403.03507) has vectors and DCT-AdamW (arXiv:2505.17967) cosines everywhere.
    """

    top: TopVectors

    @property
    def rank(self) -> int:
        """The number of vectors."""
        return self.top.rank

    def init(self, width: int) -> State:
        """Return the storage of any of them, the place of the chosen one and what each kept."""
        return {
            **self.top.init(width),
            **Columns(self.rank).init(width),
            "chosen": np.zeros(1, np.int8),
            "captured": np.zeros(len(NAMES), np.float32),
        }

    def refresh(self, standing: Gradient, state: State, epoch: int) -> Array:
        """Choose the basis at the first refresh, its vectors at every one."""
        if epoch == 0:
            self._choose(standing, state)
        return self._chosen(state).refresh(standing, state, epoch)

    def project(self, standing: Gradient, state: State) -> Array:
        """Return the coordinates in the chosen basis."""
        return self._chosen(state).project(standing, state)

    def lift(self, low: Array, state: State, width: int) -> Array:
        """Return the matrix that has the coordinates `low` in the chosen basis."""
        return self._chosen(state).lift(low, state, width)

    def vectors(self, state: State, width: int) -> Array:
        """Return the vectors of the chosen basis."""
        return self._chosen(state).vectors(state, width)

    def columns(self, state: State) -> NDArray[np.int32] | None:
        """Return the columns that the vectors of the chosen basis are, or None."""
        return self._chosen(state).columns(state)

    def _choose(self, standing: Gradient, state: State) -> None:
        for place, name in enumerate(NAMES):
            basis = self._named(name)
            trial = basis.init(standing.shape[1])  # of the state itself, nothing is written yet
            basis.refresh(standing, trial, 0)
            state["captured"][place] = captured(standing, basis, trial)
        enough = state["captured"] >= _CAPTURE_ENOUGH * state["captured"][-1]
        state["chosen"][0] = np.argmax(enough)  # the first; the vectors always are enough

    def _chosen(self, state: State) -> Basis:
        return self._named(NAMES[int(state["chosen"][0])])

    def _named(self, name: str) -> Basis:
        of: dict[str, Literal["gradient", "dct"]] = {"columns": "gradient", "dct": "dct"}
        return Columns(self.rank, of=of[name]) if name in of else self.top


def choices(states: dict[str, State]) -> dict[str, dict[str, float | str]]:
    """Return the basis that every block has chosen and what each kept, by the blocks' states."""
    found: dict[str, dict[str, float | str]] = {}
    for block, state in states.items():
        [prefix] = [n.removesuffix("chosen") for n in state if n.endswith("basis.chosen")] or [""]
        if not prefix or not state[f"{prefix}captured"].any():
            continue
        kept = (round(float(share), 4) for share in state[f"{prefix}captured"])
        basis = NAMES[int(state[f"{prefix}chosen"][0])]
        found[block] = {"basis": basis, **dict(zip(NAMES, kept, strict=True))}
    return found


def summary(found: dict[str, dict[str, float | str]]) -> str:
    """Return one line about `choices`.

    >>> kept = {"columns": 0.5, "dct": 0.6, "svd": 0.9}
    >>> summary({"a": {"basis": "svd", **kept}, "b": {"basis": "svd", **kept}})
    'bases by what they keep of a gradient: 2 svd (90 %; columns 50 %, dct 60 %)'
    """
    parts = []
    for basis in reversed(NAMES):
        own = [block for block in found.values() if block["basis"] == basis]
        if own:
            mean = {n: f"{100 * np.mean([float(block[n]) for block in own]):.0f} %" for n in NAMES}
            others = ", ".join(f"{name} {mean[name]}" for name in NAMES if name != basis)
            parts.append(f"{len(own)} {basis} ({mean[basis]}; {others})")
    return f"bases by what they keep of a gradient: {', '.join(parts)}"
