"""Linear layers with frozen weights in files and adapters beside them, forward and backward."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.types import Array, Point
from edge_train.formats.adapter import Adapter, names_of
from edge_train.protocols import Apply
from edge_train.runtimes.numpy.stored_matrices import StoredMatrices


@dataclass(frozen=True, eq=False)
class AdaptedLayers:
    """The linear layers of a network.

    y = W x + scale * B (A x) + b. What A makes of x is computed once more for the gradient.

    With DoRA every output but for b is multiplied by m / |w|, w the row of W + scale * B A. No row
    is ever formed: |w|^2 = |W|^2 + 2 scale B (A W^T) + scale^2 B (A A^T) B^T, and A W^T is a
    product more of the walk over W that the outputs take anyway.

    Attributes:
      adapted: paths of the layers that have an adapter.

    Source: LoRA (arXiv:2106.09685); DoRA (arXiv:2402.09353), section 4.3: the gradient takes |w|
    for a constant, as peft does.
    """

    matrices: StoredMatrices
    adapter: Adapter
    adapted: frozenset[str]
    # DoRA: of each path, squares of the rows of W; and the lengths at the last outputs
    _squares: dict[str, Array] = field(default_factory=dict)
    _lengths: dict[str, Array] = field(default_factory=dict)

    def outputs(self, path: str, point: Point, inputs: Array, out: Array) -> None:
        """Write the outputs of a layer into `out`, (tokens, outputs)."""
        dora = self.adapter.kind == "dora" and path in self.adapted
        if path in self.adapted:
            first, second, third = names_of(path)
            low = inputs @ point[first].T
            low *= np.float32(self.adapter.scale)
        if dora:
            self._with_lengths(path, point, inputs, out)
        else:
            self.matrices.times_transposed(inputs, f"{path}.weight", out)
        if path in self.adapted:
            out += low @ point[second].T
        if dora:
            out *= point[third] / self._lengths[path]
        bias = self.matrices.vector(f"{path}.bias")
        if bias is not None:
            out += bias

    def backward(
        self, path: str, point: Point, inputs: Array, error: Array, into: Array | None, apply: Apply
    ) -> None:
        """Add the error at the inputs to `into`, if it is wanted, and hand over the gradients.

        It follows `outputs` at the same point.
        """
        if path not in self.adapted:
            if into is not None:
                self.matrices.add_times(error, f"{path}.weight", into)
            return
        first, second, third = names_of(path)
        scale = np.float32(self.adapter.scale)
        low = inputs @ point[first].T
        low *= scale
        gradients: dict[str, Array] = {}
        if self.adapter.kind == "dora":
            lengths = self._lengths[path]
            along = self._along(path, inputs, error)
            along += np.einsum("to,to->o", error, low @ point[second].T)
            gradients[third] = along / lengths
            error = error * (point[third] / lengths)
        if into is not None:
            self.matrices.add_times(error, f"{path}.weight", into)
        low_error = error @ point[second]
        low_error *= scale
        if into is not None:
            into += low_error @ point[first]
        gradients[second] = np.matmul(error.T, low)
        gradients[first] = np.matmul(low_error.T, inputs)
        for name in (third, second, first):
            if name in gradients:
                apply(name, gradients.pop(name))

    def row_lengths(self, path: str) -> Array:
        """Return the lengths of the rows of W, which DoRA starts from."""
        if path not in self._squares:
            name = f"{path}.weight"

            def squares(rows: slice) -> NDArray[np.float64]:
                weights = self.matrices.weights(name, rows)
                found: NDArray[np.float64] = np.einsum(
                    "ij,ij->i", weights, weights, dtype=np.float64
                )
                return found

            each = list(self.matrices.workers.each(squares, self.matrices.pieces(name)))
            self._squares[path] = np.concatenate(each).astype(np.float32)
        lengths: Array = np.sqrt(self._squares[path])
        return lengths

    def _with_lengths(self, path: str, point: Point, inputs: Array, out: Array) -> None:
        """Write inputs @ W^T into `out`, and keep the lengths of the rows of W + scale * B A."""
        first, second = point[names_of(path)[0]], point[names_of(path)[1]]
        self.row_lengths(path)
        scale = np.float32(self.adapter.scale)
        both = np.empty((len(inputs) + len(first), out.shape[1]), np.float32)
        self.matrices.times_transposed(np.concatenate((inputs, first)), f"{path}.weight", both)
        out[...] = both[: len(inputs)]
        squares = self._squares[path] + 2 * scale * np.einsum(
            "or,ro->o", second, both[len(inputs) :]
        )
        squares += scale**2 * np.einsum("or,or->o", second @ (first @ first.T), second)
        self._lengths[path] = np.sqrt(squares).astype(np.float32)

    def _along(self, path: str, inputs: Array, error: Array) -> Array:
        """Return the sum over tokens of error * (inputs @ W^T), (outputs,)."""
        found = np.empty(error.shape[1], np.float32)
        name = f"{path}.weight"

        def one(rows: slice) -> None:
            outputs = inputs @ self.matrices.weights(name, rows).T
            found[rows] = np.einsum("to,to->o", error[:, rows], outputs)

        self.matrices.workers.all(one, self.matrices.pieces(name))
        return found
