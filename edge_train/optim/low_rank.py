"""Updates of matrices through few vectors: the links of GaLore, Fira, SUMO, DCT-AdamW, FRUGAL."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from edge_train.arrays.factored import (
    Factors,
    Gradient,
    Parts,
    Streamed,
    Update,
    Whole,
    dense,
)
from edge_train.arrays.types import Array, State
from edge_train.optim.bases import Basis, as_tall, is_tall, restore_shape
from edge_train.optim.transforms import for_block
from edge_train.protocols import Transform

_EMBEDDING = re.compile(r"embed|(^|\.)w[tp]e\.")


_STABLE = 0.4  # Q-GaLore's threshold, for the overlap beyond that of two random subspaces
_OVERLAP_LOST = 0.1
_LONGEST = 16  # times the interval asked for
_SHORTEST = 4  # a fourth of it
_LEAST_LENGTH = 1e-8  # of a row that a ratio is of, as in Fira's code
_NEGLIGIBLE_REMAINDER = 0.1  # share of the update's length in the basis; below it it may grow


class Moments(Protocol):
    """A transform that keeps a mean and a mean square of every coordinate."""

    def init(self, param: Array) -> State:
        """Return zero moments."""
        ...

    def update(self, update: Update, state: State, param: Array) -> Array | Streamed:
        """Return the update that the moments make of it."""
        ...

    def rotate(self, state: State, rotation: Array) -> None:
        """Express the moments of rows (count, rank) in another basis, in place.

        Means turn with the rotation. Mean squares are spread by its squares: exact where
        coordinates are uncorrelated, and never negative.

        Args:
          rotation: (rank, rank), the new vectors by the old ones.
        """
        ...


@dataclass(frozen=True)
class LowRank:
    """Applies moments to a matrix inside a basis, and may use what is left of it without any.

    With P the basis, R = G - lift(project(G)) and A the inner transform, the update is
    scale * lift(A(project(G))) + remainder * F(R), where F takes signs ("sign"), or R as it is
    ("sgd"), or each row of R as many times as long as A made that row of project(G), scale and all
    ("length"); the remainder of "length" may grow by 1 % a step.

    Chosen columns hold all of G there: R is zero in them by definition, not by a subtraction that
    rounds. Vectors that mix columns leave some of G everywhere; where a gradient has no more rank
    than the basis and the basis was found from it, R is rounding alone and so are its signs: take
    "sgd" there. Blocks that have no more rows or columns than the basis has vectors, and vectors,
    get A as it is, or `plain`.

    Args:
      inner: the transform inside the basis, and that of blocks without one.
      basis: found anew from the gradient of the moment every `refresh_every` steps.
      refresh_every: steps; of an adaptive one the interval at the start.
      moments: what becomes of them at a refresh. "keep" leaves numbers that belong to old vectors,
        as GaLore does; "rotate" turns them (for chosen columns: those that stay keep theirs, new
        ones start from zero); "reset" starts again, bias correction too, as FRUGAL does.
      adaptive: double the interval of a block after a refresh that left its subspace much as it
        was, halve it where hardly anything was left of it.
      remainder: of FRUGAL, Fira, SUMO; 0 drops what the basis does not hold.
      remainder_by: "sign", "sgd" or "length", what is done with the remainder.
      growth: of the remainder's length in a step, at most, by "length".
      plain: the transform of blocks without a basis; None: `inner`.

    Source: GaLore (arXiv:2403.03507), Q-GaLore (arXiv:2407.08296), DCT-AdamW (arXiv:2505.17967,
    without its error feedback, which is as large as the weights), FRUGAL (arXiv:2411.07837), Fira
    (arXiv:2410.01172; its code compares a remainder with that of the step before, however small,
    we with a tenth of the update in the basis at least), SUMO (NeurIPS 2025). We differ from
    Q-GaLore in the test of an interval: it compares the sign and direction of one vector, which may
    trade places with the next one, and only ever doubles; we take the overlap
    |P_new P_old^T|^2 / rank of the whole subspaces, and shrink too. Where a batch is differentiated
    in parts, a basis that is due is found from the gradient of the first part: that of the whole
    batch would have to be held as a matrix.
    """

    inner: Moments
    basis: Basis
    refresh_every: int
    scale: float = 1.0
    moments: Literal["keep", "rotate", "reset"] = "keep"
    adaptive: bool = False
    remainder: float = 0.0
    remainder_by: Literal["sign", "sgd", "length"] = "sign"
    growth: float = 1.01
    plain: Moments | None = None

    def init(self, param: Array) -> State:
        """Return the basis, the moments inside it and when it is due; all full-sized."""
        if not is_projected(param.shape, self.basis.rank):
            return with_prefix("inner.", (self.plain or self.inner).init(param))
        long, short = as_tall(param).shape
        low = np.zeros((long, self.basis.rank), np.float32)
        return {
            **with_prefix("basis.", self.basis.init(short)),
            **with_prefix("inner.", self.inner.init(low)),
            "count": np.zeros(1, np.int64),
            "due": np.zeros(1, np.int64),
            "interval": np.array([self.refresh_every], np.int64),
            "refreshes": np.zeros(1, np.int64),
            "overlap": np.zeros(1, np.float32),
            **({"length": np.zeros(1, np.float32)} if self.remainder_by == "length" else {}),
        }

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the update; refresh the basis first when it is due.

        Of factors only products with thin matrices are taken, at a refresh too, and the update
        is one of factors again: neither the gradient nor the update ever exists.
        """
        if not is_projected(param.shape, self.basis.rank):
            plain = self.plain or self.inner
            return plain.update(update, without_prefix("inner.", state), param)
        gradient = update if isinstance(update, Factors) else dense(update)
        basis = without_prefix("basis.", state)
        standing: Gradient = as_tall(gradient)
        low = self._low(standing, state)
        moved = self._moved(low, state)
        width = standing.shape[1]
        if self.remainder_by == "length":
            share = self._share(standing, low, moved, basis, state)
            return restore_shape(self._mixed(standing, low, moved, basis, share), param.shape)
        if self.remainder:
            mixes = self.basis.columns(basis) is None
            if isinstance(gradient, Factors) and mixes and self.remainder_by == "sgd":
                whole = np.full((1, 1), self.remainder, np.float32)
                return restore_shape(self._mixed(standing, low, moved, basis, whole), param.shape)
            if isinstance(gradient, Factors):
                tall = is_tall(param.shape)
                return Streamed(gradient.shape, self._parts(gradient, low, moved, basis, tall))
            assert isinstance(standing, np.ndarray)
            parts = self._parts(Whole(standing), low, moved, basis, tall=True)
            return restore_shape(dense(Streamed(standing.shape, parts)), param.shape)
        if isinstance(gradient, Factors):
            return _restored(Factors(moved.T, self.basis.vectors(basis, width)), param.shape)
        return restore_shape(self.basis.lift(moved, basis, width), param.shape)

    def rule(self, name: str) -> "LowRank":
        """Return the rule of a block."""
        plain = None if self.plain is None else for_block(self.plain, name)
        return replace(self, inner=for_block(self.inner, name), plain=plain)

    def project(self, gradient: Gradient, state: State, param: Array) -> Gradient:
        """Return the coordinates (long, rank) of a part's gradient; see `Projecting`.

        A basis that is due is refreshed first, from this part alone. With a remainder the update
        needs all of the gradient, as it does for blocks without a basis.
        """
        if self.remainder or not is_projected(param.shape, self.basis.rank):
            return gradient
        return self._low(as_tall(gradient), state)

    def update_projected(self, low: Array, state: State, param: Array) -> Update:
        """Return the update, as factors, by coordinates (long, rank) in the basis."""
        width = math.prod(param.shape) // len(low)
        vectors = self.basis.vectors(without_prefix("basis.", state), width)
        return _restored(Factors(self._moved(low, state).T, vectors), param.shape)

    def _low(self, standing: Gradient, state: State) -> Array:
        """Return coordinates in the basis, found anew first when it is due."""
        basis = without_prefix("basis.", state)
        if state["count"][0] >= state["due"][0]:
            self._refresh(standing, state, basis, without_prefix("inner.", state))
        return self.basis.project(standing, basis)

    def _moved(self, low: Array, state: State) -> Array:
        """Return the update inside the basis, and count the step."""
        state["count"] += 1
        moved = dense(self.inner.update(low, without_prefix("inner.", state), low))
        moved *= np.float32(self.scale)
        return moved

    def _mixed(
        self, standing: Gradient, low: Array, moved: Array, basis: State, share: Array
    ) -> Gradient:
        """Return the update inside the basis and a share of the remainder; of factors, as factors.

        Args:
          share: of each row, (long, 1), or of all of them, (1, 1).
        """
        vectors = self.basis.vectors(basis, standing.shape[1])
        inside = moved - share * low
        if isinstance(standing, Factors):
            left = np.concatenate([standing.left * share.T, inside.T])
            return Factors(left, np.concatenate([standing.right, vectors]))
        mixed: Array = standing * share
        mixed += inside @ vectors
        return mixed

    def _share(
        self, standing: Gradient, low: Array, moved: Array, basis: State, state: State
    ) -> Array:
        """Return how many times as long every row of the remainder becomes, (long, 1)."""
        before, after = (
            np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
            for values in (low, moved)
        )
        share: Array = (self.remainder * after / (before + _LEAST_LENGTH)).astype(np.float32)
        rest = self._mixed(standing, low, np.zeros_like(low), basis, share)
        length = rest.norm() if isinstance(rest, Factors) else float(np.linalg.norm(rest))
        if state["count"][0] > 1:
            least = _NEGLIGIBLE_REMAINDER * float(np.linalg.norm(after))
            most = self.growth * max(float(state["length"][0]), least)
            if length > most:
                share *= np.float32(most / length)
                length = most
        state["length"][0] = length
        return share

    def _parts(
        self, gradient: Factors | Whole, low: Array, moved: Array, basis: State, tall: bool
    ) -> Parts:
        """Yield rows of the update, with what is made of the remainder.

        Args:
          low: coordinates of the gradient (long, rank).
          moved: those of the update.
          tall: the rows of `gradient` are those of the standing matrix, not its columns.
        """
        columns = self.basis.columns(basis)
        if columns is not None:
            # nothing of the gradient is left in these; a difference would be rounding, of which
            # a sign makes a full step
            for rows, part in gradient.parts():
                part = self._free(part)
                if tall:
                    part[:, columns] = moved[rows]
                else:
                    here = (columns >= rows.start) & (columns < rows.stop)
                    part[columns[here] - rows.start] = moved.T[here]
                yield rows, part
            return
        vectors = self.basis.vectors(basis, min(gradient.shape))
        held, lifted = Factors(low.T, vectors), Factors(moved.T, vectors)
        if not tall:
            held, lifted = held.T, lifted.T
        for rows, part in gradient.parts():
            part -= held[rows]
            part = self._free(part)
            part += lifted[rows]
            yield rows, part

    def _free(self, left: Array) -> Array:
        """Return the update by what the basis does not hold, in place of it."""
        left = np.sign(left, out=left) if self.remainder_by == "sign" else left
        left *= np.float32(self.remainder)
        return left

    def _refresh(self, standing: Gradient, state: State, basis: State, inner: State) -> None:
        number = int(state["refreshes"][0])
        rotation = self.basis.refresh(standing, basis, number)
        if number > 0:
            rank, width = self.basis.rank, standing.shape[1]
            state["overlap"][0] = overlap = float(np.square(rotation).sum()) / rank
            if self.moments == "rotate":
                self.inner.rotate(inner, rotation)
            elif self.moments == "reset":
                for value in inner.values():
                    value[...] = 0
            if self.adaptive:
                by_chance = rank / width
                state["interval"][0] = self._interval(
                    int(state["interval"][0]), (overlap - by_chance) / (1 - by_chance)
                )
        state["refreshes"] += 1
        state["due"][:] = state["count"] + state["interval"]

    def _interval(self, now: int, overlap: float) -> int:
        if overlap >= _STABLE:
            return min(2 * now, _LONGEST * self.refresh_every)
        if overlap < _OVERLAP_LOST:
            return max(now // 2, self.refresh_every // _SHORTEST, 1)
        return now


def is_projected(shape: tuple[int, ...], rank: int) -> bool:
    """Return whether a block is a matrix with more rows and more columns than a basis has vectors.

    >>> is_projected((384, 2), 8), is_projected((384,), 8), is_projected((384, 1536), 8)
    (False, False, True)
    """
    return len(shape) > 1 and min(shape[0], math.prod(shape[1:])) > rank


def _restored(standing: Factors, shape: tuple[int, ...]) -> Factors:
    """Return what `restore_shape` does, of factors."""
    return standing if is_tall(shape) else standing.T


def with_prefix(prefix: str, state: State) -> State:
    """Return a part's state as it stands in the state of the whole."""
    return {f"{prefix}{name}": value for name, value in state.items()}


def without_prefix(prefix: str, state: State) -> State:
    """Return the arrays themselves, not copies, of one part of a state."""
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class MatricesApart:
    """Gives the matrices of layers another rule than embeddings; a `ByBlock`.

    Rows of an embedding get a gradient when their token is there: few at a time, with little in
    common. All papers leave them, vectors and heads to Adam: vectors by `is_projected`, heads by
    `HeadApart`.
    """

    matrices: Transform
    others: Transform

    def init(self, param: Array) -> State:
        """Return the state of a block without a name."""
        return self.matrices.init(param)

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the update of a block without a name."""
        return self.matrices.update(update, state, param)

    def rule(self, name: str) -> Transform:
        """Return the rule of a block."""
        return for_block(self.others if is_embedding(name) else self.matrices, name)


@dataclass(frozen=True)
class HeadApart:
    """Gives the output layer another rule than all other blocks; a `ByBlock`.

    Args:
      is_head: whether a block of this name is of that layer.
    """

    is_head: Callable[[str], bool]
    head: Transform
    others: Transform

    def init(self, param: Array) -> State:
        """Return the state of a block without a name."""
        return self.others.init(param)

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the update of a block without a name."""
        return self.others.update(update, state, param)

    def rule(self, name: str) -> Transform:
        """Return the rule of a block."""
        return for_block(self.head if self.is_head(name) else self.others, name)


def is_embedding(name: str) -> bool:
    """Return whether a parameter is a table of tokens, positions or kinds, by its usual names.

    >>> is_embedding("bert.embeddings.word_embeddings.weight"), is_embedding("h.0.attn.weight")
    (True, False)
    """
    return _EMBEDDING.search(name) is not None
