"""What layers in NumPy share: how they read and emit parameters, and the nonlinearities."""

from collections.abc import Callable

import numpy as np

from edge_train.arrays.types import Array

Read = Callable[[str], Array]  # a parameter of the layer by its short name
Emit = Callable[[str, Array], None]  # consumes the gradient of one of them


def activate(kind: str, inputs: Array, out: Array | None = None) -> Array:
    """Return tanh, relu or sigmoid of every number; `out` may be `inputs`.

    The sigmoid is (1 + tanh(x / 2)) / 2, which cannot overflow.

    >>> activate("sigmoid", np.array([-200.0, 0.0, 200.0], np.float32)).tolist()
    [0.0, 0.5, 1.0]
    """
    if kind == "tanh":
        return np.tanh(inputs, out=out)
    if kind == "relu":
        return np.maximum(inputs, np.float32(0), out=out)
    outputs = np.multiply(inputs, np.float32(0.5), out=out)
    np.tanh(outputs, out=outputs)
    outputs += 1
    outputs *= np.float32(0.5)
    return outputs


def through_activation(kind: str, outputs: Array, error: Array) -> Array:
    """Return the error at the inputs of a nonlinearity, in the place of that at its outputs."""
    if kind == "tanh":
        slope = np.square(outputs)
        np.subtract(1, slope, out=slope)
        error *= slope
    elif kind == "sigmoid":
        error *= outputs * (1 - outputs)
    else:
        error *= outputs > 0
    return error
