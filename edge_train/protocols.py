"""The seams of the runtime: what a runtime, task, estimator and transform promise each other."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.factored import Gradient, Update
from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array, Batch, Point, State
from edge_train.rng import Key

Through = Literal["row", "rows", "inputs"]  # how far back an error goes from a block's outputs
Apply = Callable[[str, Any], None]  # consumes one block's gradient: an array, or its factors


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own.

    Attributes:
      path: in the network.
      kind: "linear" holds (outputs, inputs), "conv1d" and "embedding" the inputs first; of any
        other layer nothing is known.
      blocks: the name of each parameter in its module -> the block of the run that it is.
    """

    path: str
    kind: Literal["linear", "conv1d", "embedding", "other"]
    blocks: Mapping[str, str]


@dataclass(frozen=True)
class Estimate:
    """What an estimator says of a step.

    `loss` is the mean loss of the batch at the unperturbed parameters (or the mean over a
    two-sided pair); `scalars` rebuild the gradient without the model (empty if they cannot);
    `forwards` and `backwards` count single-sample passes; `block_losses` are the local losses of
    a method that trains every block on its own target, None for a block at rest.
    """

    loss: float
    scalars: tuple[float, ...]
    forwards: int
    backwards: int = 0
    block_losses: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class StepRecord:
    """One line of the journal: everything that happened in a step.

    `skipped` says why a step changed nothing (its loss was not finite, then `loss` is None);
    `eval` is the loss on the fixed evaluation batch after the step, where it was measured;
    `gradient_norm` the length of the gradient before it was clipped (see `optim.lengths`);
    `selection_seconds` the part of the step in which candidates were scored and chosen from.
    """

    step: int
    loss: float | None
    scalars: tuple[float, ...]
    forwards: int
    backwards: int
    peak_bytes: int
    resident_bytes: int
    seconds: float
    eval: float | None = None
    skipped: str | None = None
    block_losses: tuple[float | None, ...] = ()
    gradient_norm: float | None = None
    selection_seconds: float | None = None


class Runtime(Protocol):
    """Forward passes of one model."""

    parameters: Parameters

    def forward(self, batch: Batch, points: Sequence[Point]) -> Array:
        """Return the loss of every sample at every point, shape (points, samples), float32.

        A point replaces the trainable blocks for one evaluation; the stored parameters are neither
        read nor changed. All points see the same batch: common random numbers.
        """
        ...


class GradientRuntime(Runtime, Protocol):
    """A runtime that can also differentiate."""

    def backward(self, batch: Batch, apply: Apply) -> Array:
        """Hand `apply` the gradient of the mean loss, block by block; return losses (samples,)."""
        ...


@runtime_checkable
class LetsRest(Protocol):
    """A runtime that forms no gradient of blocks that rest, where that saves something."""

    def rest(self, names: Collection[str]) -> None:
        """Let these blocks rest from now on, and no others."""
        ...


@runtime_checkable
class TellsInputs(Protocol):
    """A runtime that tells how long the inputs of its linear layers are."""

    parameters: Parameters

    def inputs(self, batch: Batch) -> Iterator[tuple[str, tuple[NDArray[np.float64], bool]]]:
        """Yield block, squares of its inputs over a batch, and whether it is (inputs, outputs)."""
        ...


@dataclass(frozen=True)
class LastLayer:
    """The last layer's gradient of every sample, as factors: none of its matrices is formed.

    The gradient of sample i is the sum of outer(errors[t], inputs[t]) over its rows t.

    Attributes:
      losses: of the samples, (samples,).
      inputs: what enters the layer, (rows, inputs) float32.
      errors: slope of each sample's own loss at the layer's outputs, (rows, outputs) float32.
      samples: which sample a row is of, (rows,), ascending.
    """

    losses: Array
    inputs: Array
    errors: Array
    samples: NDArray[np.int64]


@runtime_checkable
class TellsLastLayer(Protocol):
    """A runtime that tells what the gradient of its last layer is made of, by forward passes."""

    @property
    def last_layer_shape(self) -> tuple[int, int]:
        """Outputs and inputs of that layer."""
        ...

    def last_layer(self, batch: Batch) -> LastLayer:
        """Return the factors of every sample, computed without dropout, a few samples at a time."""
        ...


class Stage(Protocol):
    """One part of a network that is run, differentiated and released alone."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        ...

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        ...

    @property
    def divisible(self) -> bool:
        """Whether a part of a batch at a time saves memory and gives the same gradient."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest output that is possible; infinite where there is none."""
        ...


class BlockwiseRuntime(Runtime, Protocol):
    """A chain of blocks that are run and differentiated one at a time; the last gives logits.

    Nothing of a block is kept by the runtime: whoever drops the tape frees the memory. A rule that
    is local holds one tape at a time, backpropagation holds them all.
    """

    @property
    def blocks(self) -> Sequence[Stage]:
        """The stages, first to last."""
        ...

    def run(self, index: int, inputs: Array) -> tuple[Array, Any]:
        """Return the outputs of one block in training and the tape that its gradient needs."""
        ...

    def backward_stage(
        self, index: int, tape: Any, error: Array, apply: Apply, through: Through
    ) -> Array | None:
        """Hand `apply` the gradients of one block for `error` at its outputs.

        Args:
          error: gradient of the loss with respect to the outputs, same shape; overwritten.
          through: with "inputs", the error at the block's inputs is returned (None for the first
            block). "rows" takes the inputs for constants and carries the error back through the
            rows of a sequence; "row" takes earlier rows for constants too.
        """
        ...


class Objective(Protocol):
    """Where batches come from and what their loss is."""

    def batch(self, key: Key) -> Batch:
        """Return the batch of one step; it holds every random draw of the step."""
        ...

    def evaluation(self) -> Batch:
        """Return the fixed evaluation batch: the same at every call and in every process."""
        ...

    def loss(self, runtime: Runtime, batch: Batch, points: Sequence[Point]) -> Array:
        """Return losses (points, samples), float32."""
        ...


@runtime_checkable
class HasSources(Objective, Protocol):
    """An objective whose samples are of several sources; a batch then holds `source` (samples,)."""

    @property
    def source_sizes(self) -> NDArray[np.int64]:
        """Samples to train on of each source, (sources,)."""
        ...


@runtime_checkable
class LeastSquares(Objective, Protocol):
    """An objective whose loss is a sum of squares that can be had one by one."""

    def residuals(self, runtime: Any, batch: Batch, points: Sequence[Point]) -> Array:
        """Return residuals (points, samples, values), float32: a loss is the sum of their squares.

        They come from the same forward passes as the losses.
        """
        ...


RuntimeT = TypeVar("RuntimeT", bound=Runtime, contravariant=True)


class Estimator(Protocol[RuntimeT]):
    """Turns passes through a runtime into one gradient per block."""

    def estimate(
        self, runtime: RuntimeT, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Measure one step and hand `apply` every block's gradient, one block at a time.

        Raises:
          NonFinite: a loss was NaN or infinite. A method that trains block after block may have
            called `apply` for earlier blocks: the loop rolls the step back.
        """
        ...


@runtime_checkable
class Replayable(Protocol):
    """An estimator whose step can be rebuilt from its scalars, without the model."""

    def replay(self, scalars: Sequence[float], parameters: Point, key: Key, apply: Apply) -> None:
        """Hand `apply` the very gradients that `estimate` did when it returned `scalars`."""
        ...


@runtime_checkable
class Measuring(Replayable, Protocol):
    """A replayable estimator whose scalars can be had without a step being taken."""

    def measure(self, runtime: Any, task: Any, batch: Batch, key: Key) -> Estimate:
        """Return what `estimate` does; nothing is applied and nothing remembered.

        Raises:
          NonFinite: a loss was not finite.
        """
        ...


class Company(Protocol):
    """Who takes the steps of a run together; a run by itself is alone (`estimators.alone`).

    All of them take the same step from numbers that they agree on, so that they hold the same
    parameters without ever sending any.
    """

    def start(self, record: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
        """Return the first record of a new run with what all agree on in it."""
        ...

    def resume(self, record: Mapping[str, Any], run: "Running") -> None:
        """Note the first record of the journal, and the run, before a journaled step is redone."""
        ...

    def redo(self, record: "StepRecord", take: Callable[[], None]) -> None:
        """Rebuild a journaled step with all that came from the others in it.

        Args:
          take: rebuilds what this run did by itself.
        """
        ...

    def step(
        self, estimator: Any, runtime: Any, task: Objective, batch: Batch, key: Key, apply: Apply
    ) -> Estimate:
        """Take a step: measure, agree, and hand `apply` the gradient that all agree on.

        Raises:
          NonFinite: as of `Estimator.estimate`; then it is skipped by all.
          Missed: all others took it without this run.
        """
        ...

    def evaluation(self, step: int, measure: Callable[[], float]) -> float:
        """Return the loss after a step on the evaluation batches of all.

        Args:
          measure: returns that on the batch of this run.

        Raises:
          NonFinite: it is not finite.
          Missed: it was taken without this run.
        """
        ...


class Running(Protocol):
    """A run in progress, as its company sees it (`loop.Loop`)."""

    runtime: Any
    state: dict[str, State]
    checkpoints: Path
    stop_requested: bool

    def save(self) -> None:
        """Write a checkpoint."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An estimator that remembers something from one step to the next."""

    @property
    def state(self) -> State:
        """Arrays that change in place and keep their shapes: part of every checkpoint."""
        ...


class BatchSelection(Protocol):
    """Which samples a step trains on; a task's own batch is what it chooses from."""

    def choose(self, task: Objective, runtime: Runtime, key: Key) -> Batch:
        """Return the batch of a step, a function of the key and the parameters alone.

        A journal is redone from it, so it holds nothing from one step to the next but the state of
        a `Scoring`.
        """
        ...


@runtime_checkable
class Scoring(BatchSelection, Protocol):
    """A selection that passes candidates through the model, and may remember what it saw."""

    @property
    def forwards(self) -> int:
        """Single-sample passes that a choice takes."""
        ...

    def begin(self, runtime: Any) -> State:
        """Return the full-sized state, which `choose` changes in place: part of every checkpoint.

        Raises:
          InputError: the runtime does not tell what it scores by.
        """
        ...


class BlockSchedule(Protocol):
    """Which blocks a step trains; the others rest: neither they nor their moments change.

    A schedule of rates goes on meanwhile (`Scheduled`), so that every block ends at its last rate;
    moments count the updates of their block.

    Attributes:
      forgets: whether the state of a block that rests is let go; it begins anew at its next turn.
    """

    @property
    def forgets(self) -> bool:
        """See the class."""
        ...

    def trains(self, step: int, name: str) -> bool:
        """Return whether a block is trained in a step, a function of these two alone."""
        ...


class Transform(Protocol):
    """One link of the update rule, for one block at a time."""

    def init(self, param: Array) -> State:
        """Return the full-sized state for a block; `update` never makes it grow."""
        ...

    def update(self, update: Update, state: State, param: Array) -> Update:
        """Return the transformed update, same shape; `state` changes in place.

        What comes in may be overwritten and returned; `param` is only read. What comes in as
        factors goes on without ever being a whole matrix where the link can do that; links that
        cannot make it one (`factored.dense`).
        """
        ...


@runtime_checkable
class Projecting(Transform, Protocol):
    """A transform that may read less of a gradient than all: a linear map of it.

    Maps of the parts of a batch then add up to that of the whole batch, and only their sum is held.
    """

    def project(self, gradient: Gradient, state: State, param: Array) -> Gradient:
        """Return the map of a gradient; the gradient itself for a block that needs all of it.

        The map changes only at the first call after an update, and is then in `state`.
        """
        ...

    def update_projected(self, low: Array, state: State, param: Array) -> Update:
        """Return what `update` makes of a gradient whose map is `low`."""
        ...


@runtime_checkable
class Scheduled(Transform, Protocol):
    """A transform that counts the steps of a run, and not only the updates of its block."""

    def rest(self, state: State, steps: int = 1) -> None:
        """Count steps in which the block rests."""
        ...


@runtime_checkable
class SeesNoise(Transform, Protocol):
    """A transform that can tell when the gradients of its block have become noise."""

    def is_noise(self, state: State) -> bool:
        """Return whether they have, by its state alone; False where nobody looks."""
        ...


@runtime_checkable
class ByBlock(Transform, Protocol):
    """A transform that is another one for blocks of some names, or draws by the name."""

    def rule(self, name: str) -> Transform:
        """Return the transform of a block."""
        ...


@dataclass(frozen=True)
class Share:
    """The gradient of some of a step's samples.

    Attributes:
      gradient: of their mean loss.
      share: how many of the step's samples they are; the shares of a step add up to 1.
      last: whether no more of this block's gradient follows in the step.
    """

    gradient: Gradient
    share: float
    last: bool
