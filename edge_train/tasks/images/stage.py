"""What a stage of a head promises: outputs, and exact gradients of its parameters."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from edge_train.arrays.types import Array
from edge_train.rng import Key

Read = Mapping[str, Array]  # a stage's parameters by its own names


class HeadStage(Protocol):
    """One stage: (samples, inputs) to (samples, outputs)."""

    @property
    def name(self) -> str:
        """What people call it, and what its parameters' names begin with."""
        ...

    @property
    def inputs(self) -> int:
        """Numbers of a sample that it reads."""
        ...

    @property
    def outputs(self) -> int:
        """Numbers of a sample that it gives."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest output that is possible."""
        ...

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, by name."""
        ...

    def start(self, key: Key) -> dict[str, Array]:
        """Return start values, by name."""
        ...

    def forward(self, read: Read, inputs: Array) -> tuple[Array, Any]:
        """Return outputs, and what `backward` needs; each parameter is read once."""
        ...

    def backward(
        self, tape: Any, error: Array, needed: bool
    ) -> tuple[dict[str, Array], Array | None]:
        """Return gradients by name, and the error at the inputs where it is needed.

        Args:
          error: (samples, outputs) gradient of the loss with respect to the outputs.
        """
        ...


@runtime_checkable
class HasBank(Protocol):
    """A stage that measures its inputs by features which it learns."""

    def has(self, read: Read, inputs: Array) -> Array:
        """Return how much each input has of each feature, (samples, features)."""
        ...
