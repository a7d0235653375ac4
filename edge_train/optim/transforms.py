"""Links of the update rule; each sees one block at a time and keeps its state outside itself."""

import math
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import numpy as np

from edge_train.arrays.factored import (
    Factors,
    Gradient,
    Parts,
    Streamed,
    Update,
    Whole,
    dense,
    scale,
)
from edge_train.arrays.types import Array, State
from edge_train.protocols import ByBlock, Projecting, Scheduled, SeesNoise, Transform

_TILE = 1 << 16  # coordinates that exist in float64 at once

T = TypeVar("T")


def for_block(transform: T, name: str) -> T:
    """Return what a part of a rule is for a block; itself, if it is the same for all."""
    return cast(T, transform.rule(name)) if isinstance(transform, ByBlock) else transform


@dataclass(frozen=True)
class Chain:
    """Links applied in order; the state of link i carries the prefix `i.`."""

    links: tuple[Transform, ...]

    def init(self, param: Array) -> State:
        """Return the states of all links."""
        return {
            f"{position}.{name}": value
            for position, link in enumerate(self.links)
            for name, value in link.init(param).items()
        }

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the update after every link."""
        return self._through(update, state, param, 0)

    def project(self, gradient: Gradient, state: State, param: Array) -> Gradient:
        """Return what the first link reads of a gradient; see `Projecting`."""
        first = self.links[0]
        if isinstance(first, Projecting):
            return first.project(gradient, _own(state, 0), param)
        return gradient

    def update_projected(self, low: Array, state: State, param: Array) -> Update:
        """Return the update after every link, by what the first one projected."""
        first = self.links[0]
        assert isinstance(first, Projecting)
        update = first.update_projected(low, _own(state, 0), param)
        return self._through(update, state, param, 1)

    def rule(self, name: str) -> "Chain":
        """Return the chain of a block."""
        return Chain(tuple(for_block(link, name) for link in self.links))

    def is_noise(self, state: State) -> bool:
        """Return whether a link knows that gradients are noise; see `SeesNoise`."""
        return any(
            isinstance(link, SeesNoise) and link.is_noise(_own(state, position))
            for position, link in enumerate(self.links)
        )

    def rest(self, state: State, steps: int = 1) -> None:
        """Let the links that count steps count these."""
        for position, link in enumerate(self.links):
            if isinstance(link, Scheduled):
                link.rest(_own(state, position), steps)

    def _through(self, update: Update, state: State, param: Array, start: int) -> Update:
        for position, link in enumerate(self.links[start:], start):
            update = link.update(update, _own(state, position), param)
        return update


def _own(state: State, position: int) -> State:
    """Return the arrays of one link of a chain."""
    prefix = f"{position}."
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class NormCorrection:
    """Divides a random gradient estimate by the length it has in excess of the gradient.

    With n Gaussian directions in d coordinates, E|g|^2 = (d + n - 1) / n * |gradient|^2, so
    g / sqrt((d + n - 1) / n) has the gradient's length and Adam's epsilon keeps its meaning.

    Source: ZOODiP (arXiv:2503.14868), in the code only.
    """

    queries: int

    def init(self, param: Array) -> State:
        """Return no state."""
        return {}

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the update, shortened."""
        update = dense(update)
        return update / np.float32(math.sqrt((update.size + self.queries - 1) / self.queries))


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction; moments in float32 whatever the model's precision.

    Half-precision second moments underflow below |g| = 8e-3 and turn Adam into momentum SGD.
    Bytes: 8 per coordinate.

    Source: Kingma and Ba (arXiv:1412.6980).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, param: Array) -> State:
        """Return zero moments and a zero count."""
        return {
            "first": np.zeros(param.shape, param.dtype),  # pages, where it writes
            "second": np.zeros(param.shape, param.dtype),
            "count": np.zeros(1, np.int64),
        }

    def update(self, update: Update, state: State, param: Array) -> Array | Streamed:
        """Return the bias-corrected ratio of the moments, of factors in rows."""
        state["count"] += 1
        if isinstance(update, Factors | Whole):
            return Streamed(update.shape, self._stream(update, state))
        return self._moved(dense(update), state, slice(None))

    def _stream(self, gradient: Factors | Whole, state: State) -> Parts:
        for rows, part in gradient.parts():
            yield rows, self._moved(part, state, rows)

    def _moved(self, update: Array, state: State, rows: slice) -> Array:
        first, second = state["first"][rows], state["second"][rows]
        count = int(state["count"][0])
        first += np.float32(1 - self.beta1) * (update - first)
        second += np.float32(1 - self.beta2) * (update * update - second)
        first_debiased = first / np.float32(1 - self.beta1**count)
        root: Array = np.sqrt(second / np.float32(1 - self.beta2**count), dtype=np.float32)
        return first_debiased / (root + np.float32(self.epsilon))

    def rotate(self, state: State, rotation: Array) -> None:
        """Express moments of rows in another basis; see `low_rank.Moments`."""
        state["first"][:] = state["first"] @ rotation.T
        state["second"][:] = state["second"] @ np.square(rotation).T


@dataclass(frozen=True)
class WeightDecay:
    """Adds a share of the parameter to the update: decoupled decay, when it stands after Adam.

    Vectors (biases, norms) are left alone, as is usual. Of a matrix the decay is only noted, and
    whoever subtracts the update reads the parameter in rows: one in few bits shows a transform no
    numbers. Memory: one copy of a block of three or more dimensions, nothing for a matrix.

    Source: Loshchilov and Hutter (arXiv:1711.05101); the rate of the schedule multiplies both
    terms, as in torch.optim.AdamW.
    """

    rate: float

    def init(self, param: Array) -> State:
        """Return no state."""
        return {}

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the update with the decay in it."""
        if param.ndim < 2:
            return update
        if isinstance(update, np.ndarray):
            if update.ndim > 2:  # these are never in few bits
                return update + np.float32(self.rate) * param
            update = Whole(update)
        update.decay += self.rate
        return update


@dataclass(frozen=True)
class LearningRate:
    """Multiplies, in place, by a rate that warms up, then decays to `final` of itself.

    It counts steps, those in which its block rests too: else a block that is trained in one step of
    eight would end near the rate it began with.

    Args:
      rate: the rate at step 0.
      steps: length of warm-up and decay; afterwards the rate stays at its end.
      final: share of `rate` at the end; 1 keeps it constant.
      relative: whether `rate` is a share of the block's root mean square at the start of the run.
        Token embeddings differ tenfold in size between models; a relative rate carries over.
      warmup: steps in which the rate rises, in equal parts, to `rate`.
      shape: of the decay: half a cosine, or a line.
      longer: (count, steps): from this count on the decay is one over so many steps. Those before
        keep their rates, so that a run which was made longer can be redone to the same bits.
      fits: likewise of a run with a time, or of one that ends where gradients are noise: from this
        count on it has so many steps. The warm-up keeps its share of the steps where they are fewer
        than `steps`. None holds any more once the run was made longer.
    """

    rate: float
    steps: int
    final: float = 1.0
    relative: bool = False
    warmup: int = 0
    shape: Literal["cosine", "line"] = "cosine"
    longer: tuple[tuple[int, int], ...] = ()
    fits: tuple[tuple[int, int], ...] = ()

    def init(self, param: Array) -> State:
        """Return a zero count and the scale of the block."""
        size = root_mean_square(param) if self.relative else 1.0
        return {"count": np.zeros(1, np.int64), "scale": np.array([size], np.float32)}

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the update times the rate of this step."""
        share = self.share(int(state["count"][0]))
        state["count"] += 1
        scale(update, self.rate * share)
        scale(update, float(state["scale"][0]))
        return update

    def share(self, count: int) -> float:
        """Return the share of the rate after `count` steps."""
        steps, warmup, begun = self.steps, self.warmup, 0
        for start, longer in self.longer:
            steps, begun = (longer, start) if count >= start else (steps, begun)
        for start, fitting in self.fits:
            if count >= start >= begun:
                steps = fitting
                warmup = min(self.warmup, math.ceil(self.warmup * fitting / self.steps))
        if count < warmup:
            return (count + 1) / warmup
        progress = min((count - warmup) / max(steps - warmup, 1), 1.0)
        if self.shape == "line":
            return 1 - (1 - self.final) * progress
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))

    def rest(self, state: State, steps: int = 1) -> None:
        """Count steps without an update."""
        state["count"] += steps


def root_mean_square(block: Array) -> float:
    """Return the root mean square of a block's coordinates, without a copy of the block."""
    flat = block.reshape(-1)
    parts = (flat[start : start + _TILE] for start in range(0, flat.size, _TILE))
    total = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
    return math.sqrt(total / flat.size)


@dataclass(frozen=True)
class Momentum:
    """Nesterov's momentum as a mean: v = decay * v + (1 - decay) * g; update the same way from v.

    A mean instead of the usual sum, so that a rate carries over between values of `decay`. The
    incoming gradient is overwritten. Bytes: 4 per coordinate; none with `decay` 0.
    """

    decay: float = 0.9

    def init(self, param: Array) -> State:
        """Return a zero velocity."""
        return {"velocity": np.zeros(param.shape, param.dtype)} if self.decay else {}

    def update(self, update: Update, state: State, param: Array) -> Array:
        """Return the gradient averaged with earlier ones, looking one step ahead."""
        update = dense(update)
        if not self.decay:
            return update
        velocity = state["velocity"]
        velocity *= np.float32(self.decay)
        update *= np.float32(1 - self.decay)
        velocity += update
        rows = max(_TILE // max(update[:1].size, 1), 1)
        for start in range(0, len(update), rows):  # no temporary of a whole block
            part = slice(start, start + rows)
            update[part] += np.float32(self.decay) * velocity[part]
        return update
