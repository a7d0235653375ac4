"""Linear layers with frozen weights in files and adapters beside them, forward and backward."""

from collections.abc import Sequence
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

    def outputs(self, path: str, points: Sequence[Point], inputs: Array, out: Array) -> None:
        """Write the outputs of a layer into `out`, (tokens, outputs).

        Args:
          points: equal parts of the tokens, one behind the other, are of one each. The product with
            W is one for all.
        """
        if path not in self.adapted:
            self.matrices.times_transposed(inputs, f"{path}.weight", out)
        else:
            self._adapted_outputs(path, points, inputs, out)
        bias = self.matrices.vector(f"{path}.bias")
        if bias is not None:
            out += bias

    def _adapted_outputs(
        self, path: str, points: Sequence[Point], inputs: Array, out: Array
    ) -> None:
        names = names_of(path)
        scale = np.float32(self.adapter.scale)
        firsts = [point[names[0]] for point in points]
        lows = [part @ first.T for part, first in zip(_parts(inputs, points), firsts, strict=True)]
        seconds = [point[names[1]] for point in points]
        lengths: Sequence[Array] = ()
        if self.adapter.kind == "dora":
            lengths = self._with_lengths(path, firsts, seconds, inputs, out)
        else:
            self.matrices.times_transposed(inputs, f"{path}.weight", out)
        for number, some in enumerate(_parts(out, points)):
            low = lows[number]
            low *= scale
            some += low @ seconds[number].T
            if lengths:
                some *= points[number][names[2]] / lengths[number]

    def backward(
        self, path: str, point: Point, inputs: Array, error: Array, into: Array | None, apply: Apply
    ) -> None:
        """Add the error at the inputs to `into`, if it is wanted, and hand over the gradients.

        It follows `outputs` at the same point alone.
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

    def _with_lengths(
        self,
        path: str,
        firsts: Sequence[Array],
        seconds: Sequence[Array],
        inputs: Array,
        out: Array,
    ) -> list[Array]:
        """Write inputs @ W^T into `out`; return the lengths of the rows of each W + scale * B A.

        Those of the last point are kept for `backward`.
        """
        self.row_lengths(path)
        scale = np.float32(self.adapter.scale)
        rank = self.adapter.rank
        both = np.empty((len(inputs) + rank * len(firsts), out.shape[1]), np.float32)
        self.matrices.times_transposed(np.concatenate((inputs, *firsts)), f"{path}.weight", both)
        out[...] = both[: len(inputs)]
        found = []
        for number, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
            start = len(inputs) + rank * number
            mixed = both[start : start + rank]
            squares = self._squares[path] + 2 * scale * np.einsum("or,ro->o", second, mixed)
            squares += scale**2 * np.einsum("or,or->o", second @ (first @ first.T), second)
            found.append(np.sqrt(np.maximum(squares, 0)).astype(np.float32))
        self._lengths[path] = found[-1]
        return found

    def _along(self, path: str, inputs: Array, error: Array) -> Array:
        """Return the sum over tokens of error * (inputs @ W^T), (outputs,)."""
        found = np.empty(error.shape[1], np.float32)
        name = f"{path}.weight"

        def one(rows: slice) -> None:
            outputs = inputs @ self.matrices.weights(name, rows).T
            found[rows] = np.einsum("to,to->o", error[:, rows], outputs)

        self.matrices.workers.all(one, self.matrices.pieces(name))
        return found


def _parts(rows: Array, points: Sequence[Point]) -> list[Array]:
    """Return views of the rows of each point."""
    size = len(rows) // len(points)
    return [rows[n * size : (n + 1) * size] for n in range(len(points))]
