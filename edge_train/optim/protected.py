"""An update rule that leaves alone what old tasks need: GPM's projection and CUBER's regimes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import Update, dense
from edge_train.arrays.types import Array, State
from edge_train.optim.transforms import for_block
from edge_train.protocols import Scheduled, Transform

APART, AGAINST, ALONG = 1, 2, 3  # the regimes of an old task in a layer
_MOVES = 0.5  # share of a gradient in an old task's space from which on they are related
_AGREES = 0.0  # cosine of two gradients in it above which a step helps both
_MOST_RELATED = 2  # old tasks in regimes 2 and 3 of a layer
# Share of the newest gradient in the mean that is tested again: one gradient of ten samples nearly
# always disagrees within a few steps, and every task would end in regime 2.
_NEWEST = 0.02
_PULL = 0.1  # length of the gradient that holds weights near those of the old tasks
_OWN = "protected."  # before the names of the state


@dataclass(frozen=True)
class Space:
    """What the inputs of old tasks span in front of one matrix.

    Attributes:
      directions: (inputs, k) float32, orthonormal.
      owned: (tasks, k) which of them each task needs.
      gradients: of each task (outputs, k) G B: the gradient of its loss where it had been learned,
        by directions; zeros in those it does not own.
    """

    directions: Array = field(repr=False)
    owned: NDArray[np.bool_] = field(repr=False)
    gradients: Sequence[Array] = field(repr=False)

    def __repr__(self) -> str:
        """Return its sizes, by which rules of one state are told apart."""
        return f"Space{self.owned.shape}"

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self.directions.nbytes + sum(one.nbytes for one in self.gradients)


@dataclass(frozen=True)
class Protected:
    """A rule whose updates keep to what old tasks do not need.

    The projection comes after the rule, on the update itself: momentum and Adam may leave the
    space of the projected gradients, the weights do not.

    Args:
      inner: the rule of every block.
      spaces: of the matrices that old tasks use, by name.
      frozen: blocks that rest: biases and norms, whose input is a constant that every task has.
      regimes: whether a step that helps an old task may change what it needs (CUBER); else
        nothing may (GPM).

    Source: GPM (arXiv:2103.09762): G <- G - (G M) M^T. CUBER (arXiv:2211.00789) for the regimes.
      We differ: the gradient of an old task is kept as G B (outputs, k) and compared inside of its
      space; regime 3 is tested again by a mean of the last gradients, not by each one; biases and
      norms rest after the first task; regime 2 is as regime 1, since its scaling Q of old weights
      would have to be told the task of every sample.
    """

    inner: Transform
    spaces: Mapping[str, Space]
    frozen: frozenset[str]
    regimes: bool

    @property
    def links(self) -> tuple[Transform, ...]:
        """The links of the rule, for who looks for its rate."""
        found: tuple[Transform, ...] = getattr(self.inner, "links", ())
        return found

    def init(self, param: Array) -> State:
        """Return the state of a block that nothing protects."""
        return self.inner.init(param)

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the update of such a block."""
        return self.inner.update(update, state, param)

    def rule(self, name: str) -> Transform:
        """Return the rule of a block."""
        if name in self.frozen:
            return Resting()
        inner, space = for_block(self.inner, name), self.spaces.get(name)
        return inner if space is None else ProtectedMatrix(inner, space, self.regimes)


@dataclass(frozen=True)
class Resting:
    """The rule of a block that is not changed."""

    def init(self, param: Array) -> State:
        """Return no state."""
        return {}

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return zeros."""
        return np.zeros(update.shape, np.float32)


@dataclass(frozen=True)
class ProtectedMatrix:
    """The rule of one matrix.

    State: `regime` of every old task, 0 before the first step; by direction (outputs, k) `moved`,
    how far the weights have gone, and `mean` of the last gradients.
    """

    inner: Transform
    space: Space
    regimes: bool

    def init(self, param: Array) -> State:
        """Return the rule's state and, with regimes, where each task and direction stands."""
        state = {f"{_OWN}{name}": part for name, part in self.inner.init(param).items()}
        if self.regimes:
            tasks, directions = self.space.owned.shape
            state["regime"] = np.zeros(tasks, np.int8)
            state["moved"] = np.zeros((len(param), directions), np.float32)
            state["mean"] = np.zeros((len(param), directions), np.float32)
        return state

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the update less what it has in directions that old tasks need."""
        gradient = dense(update)
        base = self.space.directions
        if self.regimes:
            self._decide(gradient, state["regime"], state["mean"])
            gradient = self._held(gradient, state)
        found = dense(self.inner.update(gradient, _inner(state), param))
        inside = found @ base
        if self.regimes:
            free = ~self.space.owned[state["regime"] != ALONG].any(axis=0)
            state["moved"][:, free] -= inside[:, free]
            inside[:, free] = 0
        kept: Array = np.subtract(found, inside @ base.T)
        return kept

    def rest(self, state: State, steps: int = 1) -> None:
        """Let a rule that counts steps count these."""
        if isinstance(self.inner, Scheduled):
            self.inner.rest(_inner(state), steps)

    def _decide(self, gradient: Array, regime: NDArray[np.int8], mean: Array) -> None:
        """Choose the regimes by the first gradient; take back 3 where later ones disagree."""
        inside = gradient @ self.space.directions
        mean += np.float32(_NEWEST) * (inside - mean)
        if not regime.any():
            mean[:] = inside
            regime[:] = first_regimes(gradient, inside, self.space)
            return
        for task in np.flatnonzero(regime == ALONG):
            if not agrees(mean, self.space, task):
                regime[task] = AGAINST

    def _held(self, gradient: Array, state: State) -> Array:
        """Return the gradient with that of the distance from the old weights, where they may move.

        Of the distance itself, not of its square: it has one length, however near.
        """
        moved = state["moved"]
        distance = float(np.linalg.norm(moved))
        if not distance:
            return gradient
        return gradient + (np.float32(_PULL / distance) * moved) @ self.space.directions.T


def first_regimes(gradient: Array, inside: Array, space: Space) -> list[int]:
    """Return the regime of every old task at the first gradient of a new one.

    1 where the gradient is mostly outside of the task's space; of the others the two with the most
    in it are 3 where their own gradient agrees, else 2.

    Args:
      gradient: (outputs, inputs).
      inside: (outputs, k) the same by the directions of `space`.
    """
    length = float(np.linalg.norm(gradient)) or 1.0
    shares = [float(np.linalg.norm(inside[:, owned])) / length for owned in space.owned]
    related = [task for task in range(len(shares)) if shares[task] > _MOVES]
    related = sorted(related, key=lambda task: -shares[task])[:_MOST_RELATED]
    found = [APART] * len(shares)
    for task in related:
        found[task] = ALONG if agrees(inside, space, task) else AGAINST
    return found


def agrees(inside: Array, space: Space, task: Any) -> bool:
    """Return whether a gradient and that of an old task point the same way inside its space."""
    owned, old = space.owned[task], space.gradients[task]
    own = inside[:, owned]
    product = float(np.vdot(old[:, owned], own))
    lengths = float(np.linalg.norm(old[:, owned])) * float(np.linalg.norm(own))
    return product > _AGREES * lengths


def _inner(state: State) -> State:
    return {n.removeprefix(_OWN): part for n, part in state.items() if n.startswith(_OWN)}
