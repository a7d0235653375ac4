"""Forward and backward of every layer of a small network in NumPy; samples first, channels last."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from edge_train.networks import (
    Activation,
    Convolution,
    Dense,
    Layer,
    Normalization,
    Pool,
    Recurrent,
    Reshape,
)
from edge_train.protocols import Array

Read = Callable[[str], Array]  # a parameter of the layer by its short name
Emit = Callable[[str, Array], None]  # consumes the gradient of one of them
Statistics = tuple[Array, Array]  # mean and variance per channel of a calibrated batch norm

_COLUMN_BYTES = 1 << 20  # patches of a convolution that exist at once; fits a second-level cache
_VARIANCE_FLOOR = np.float32(1e-5)


def forward(
    layer: Layer,
    read: Read,
    inputs: Array,
    *,
    statistics: Statistics | None = None,
    reuse: bool = False,
) -> tuple[Array, Any]:
    """Return a layer's outputs, and exactly what its backward needs.

    Args:
      inputs: (samples, ...) float32.
      statistics: of a batch normalization: what to use in place of the batch's own.
      reuse: whether an activation may overwrite its inputs, since nobody needs them any more.
    """
    match layer:
        case Dense():
            outputs = inputs @ read("weight").T
            outputs += read("bias")
            return outputs, inputs
        case Convolution():
            return convolve(layer, read("weight"), read("bias"), inputs), inputs
        case Recurrent():
            return recur(layer, read("weight"), read("recurrent"), read("bias"), inputs)
        case Activation(kind):
            outputs = activate(kind, inputs, inputs if reuse else None)
            return outputs, outputs
        case Normalization():
            return normalize(layer, read("scale"), read("shift"), inputs, statistics)
        case Pool("max", size):
            outputs, where = pool_max(inputs, size)
            return outputs, (where, inputs.shape)
        case Pool(_, size):
            return pool_mean(inputs, size), inputs.shape
        case Reshape(kind):
            return _reshaped(kind, inputs), inputs.shape


def backward(
    layer: Layer, saved: Any, read: Read, error: Array, emit: Emit, *, propagate: bool, needed: bool
) -> Array | None:
    """Emit the layer's parameter gradients for `error` at its outputs; return that at its inputs.

    Args:
      saved: what `forward` gave.
      error: (samples, ...) gradient of the loss with respect to the outputs; it may be changed.
      propagate: whether the error goes on to earlier rows of a sequence. False takes the state
        before each row for a constant, which is all that a local rule may know.
      needed: whether the error at the inputs is wanted; else layers may return None.
    """
    match layer:
        case Dense():
            passed = error @ read("weight") if needed else None
            emit("weight", error.T @ saved)
            emit("bias", error.sum(axis=0))
            return passed
        case Convolution():
            passed = unconvolve(layer, read("weight"), error, saved.shape) if needed else None
            weight, bias = convolution_gradient(layer, saved, error)
            emit("weight", weight)
            del weight
            emit("bias", bias)
            return passed
        case Recurrent():
            return _recurrent_backward(layer, saved, read, error, emit, propagate, needed)
        case Activation("tanh"):
            slope = np.square(saved)
            np.subtract(1, slope, out=slope)
            error *= slope
            return error
        case Activation("sigmoid"):
            error *= saved * (1 - saved)
            return error
        case Activation():
            error *= saved > 0
            return error
        case Normalization():
            return _normalization_backward(layer, saved, read, error, emit)
        case Pool("max", size):
            where, shape = saved
            return _pool_max_backward(error, where, shape, size)
        case Pool(_, size):
            return _pool_mean_backward(error, saved, size)
        case Reshape("last"):
            passed = np.zeros(saved, np.float32)
            passed[:, -1] = error
            return passed
        case Reshape():
            return error.reshape(saved)


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


def _reshaped(kind: str, inputs: Array) -> Array:
    if kind == "flat":
        return inputs.reshape(len(inputs), -1)
    if kind == "rows":
        return inputs.reshape(*inputs.shape[:2], -1)
    return inputs[:, -1]


# ----------------------------------------------------------------------------- convolution


def convolve(layer: Convolution, weight: Array, bias: Array, inputs: Array) -> Array:
    """Return a convolution as matrix products over patches, a few samples at a time.

    Args:
      weight: (channels, kernel * kernel * input channels).
      inputs: (samples, height, width, input channels).
    """
    outputs: Array | None = None
    for some, columns, (height, width) in _columns(layer, inputs):
        if outputs is None:
            outputs = np.empty((len(inputs), height, width, layer.channels), np.float32)
        rows = outputs[some].reshape(-1, layer.channels)
        np.matmul(columns, weight.T, out=rows)
        rows += bias
    assert outputs is not None
    return outputs


def convolution_gradient(layer: Convolution, inputs: Array, error: Array) -> tuple[Array, Array]:
    """Return the gradients of weight and bias for `error` at the outputs."""
    weight: Array | None = None
    for some, columns, _ in _columns(layer, inputs):
        part = error[some].reshape(-1, layer.channels).T @ columns
        weight = part if weight is None else np.add(weight, part, out=weight)
    assert weight is not None
    return weight, error.reshape(-1, layer.channels).sum(axis=0)


def unconvolve(layer: Convolution, weight: Array, error: Array, shape: tuple[int, ...]) -> Array:
    """Return the error at the inputs, of `shape`, for `error` at the outputs."""
    samples, height, width, channels = shape
    kernel, pad, stride = layer.kernel, layer.padding, layer.stride
    rows, columns = error.shape[1:3]
    passed = np.empty(shape, np.float32)
    tile = _tile(rows * columns * weight.shape[1])
    for start in range(0, samples, tile):
        some = slice(start, min(start + tile, samples))
        patches = error[some].reshape(-1, layer.channels) @ weight
        patches = patches.reshape(-1, rows, columns, kernel, kernel, channels)
        padded = np.zeros((len(patches), height + 2 * pad, width + 2 * pad, channels), np.float32)
        for y in range(kernel):
            for x in range(kernel):
                down, across = y + stride * rows, x + stride * columns
                padded[:, y:down:stride, x:across:stride] += patches[:, :, :, y, x]
        passed[some] = padded[:, pad : pad + height, pad : pad + width]
    return passed


def _tile(numbers_per_sample: int) -> int:
    return max(1, _COLUMN_BYTES // (4 * numbers_per_sample))


def _columns(layer: Convolution, inputs: Array) -> Iterator[tuple[slice, Array, tuple[int, int]]]:
    """Yield samples, their patches (positions, kernel * kernel * channels) and the output size.

    One buffer is filled again and again: use the patches before asking for the next.
    """
    samples, height, width, channels = inputs.shape
    kernel, pad, stride = layer.kernel, layer.padding, layer.stride
    rows = (height + 2 * pad - kernel) // stride + 1
    columns = (width + 2 * pad - kernel) // stride + 1
    numbers = kernel * kernel * channels
    tile = min(_tile(rows * columns * numbers), samples)
    buffer = np.empty((tile, rows, columns, kernel, kernel, channels), np.float32)
    padded = np.zeros((tile, height + 2 * pad, width + 2 * pad, channels), np.float32)
    for start in range(0, samples, tile):
        some = slice(start, min(start + tile, samples))
        count = some.stop - some.start
        padded[:count, pad : pad + height, pad : pad + width] = inputs[some]
        n, y, x, c = padded.strides
        windows = as_strided(
            padded[:count],
            (count, rows, columns, kernel, kernel, channels),
            (n, y * stride, x * stride, y, x, c),
            writeable=False,
        )
        np.copyto(buffer[:count], windows)
        yield some, buffer[:count].reshape(-1, numbers), (rows, columns)


# ----------------------------------------------------------------------------- pooling


def _squares(inputs: Array, size: int) -> Iterator[Array]:
    """Yield the inputs at every place in a square, in reading order."""
    height, width = (side // size * size for side in inputs.shape[1:3])
    for y in range(size):
        for x in range(size):
            yield inputs[:, y:height:size, x:width:size]


def pool_max(inputs: Array, size: int) -> tuple[Array, NDArray[np.uint8]]:
    """Return the largest value of every square and its place in it; of equals, the first."""
    places = _squares(inputs, size)
    outputs = next(places).copy()
    where = np.zeros(outputs.shape, np.uint8)
    for number, values in enumerate(places, 1):
        larger = values > outputs
        np.copyto(outputs, values, where=larger)
        np.copyto(where, np.uint8(number), where=larger)
    return outputs, where


def _pool_max_backward(
    error: Array, where: NDArray[np.uint8], shape: tuple[int, ...], size: int
) -> Array:
    passed = np.zeros(shape, np.float32)
    for number, target in enumerate(_squares(passed, size)):
        np.multiply(error, where == number, out=target)
    return passed


def pool_mean(inputs: Array, size: int) -> Array:
    """Return the mean of every square."""
    places = _squares(inputs, size)
    outputs = next(places).copy()
    for values in places:
        outputs += values
    outputs *= np.float32(1 / size**2)
    return outputs


def _pool_mean_backward(error: Array, shape: tuple[int, ...], size: int) -> Array:
    passed = np.zeros(shape, np.float32)
    error *= np.float32(1 / size**2)
    for target in _squares(passed, size):
        target[:] = error
    return passed


# ----------------------------------------------------------------------------- normalization


def _normalized_axes(layer: Normalization, inputs: Array) -> tuple[int, ...]:
    if layer.kind == "batch":
        return tuple(range(inputs.ndim - 1))
    return (2,) if inputs.ndim == 3 else tuple(range(1, inputs.ndim))


def channel_statistics(inputs: Array) -> Statistics:
    """Return mean and variance of every channel over all else."""
    axes = tuple(range(inputs.ndim - 1))
    return inputs.mean(axis=axes), inputs.var(axis=axes)


def normalize(
    layer: Normalization,
    scale: Array,
    shift: Array,
    inputs: Array,
    statistics: Statistics | None,
) -> tuple[Array, tuple[Array, Array]]:
    """Return scaled and shifted inputs of zero mean and unit variance, and what backward needs."""
    axes = _normalized_axes(layer, inputs)
    if layer.kind == "batch" and statistics is not None:
        mean, variance = statistics
    else:
        mean, variance = inputs.mean(axis=axes, keepdims=True), inputs.var(axis=axes, keepdims=True)
    steepness = (1 / np.sqrt(variance + _VARIANCE_FLOOR)).astype(np.float32)
    standard = inputs - mean
    standard *= steepness
    outputs = standard * scale
    outputs += shift
    return outputs, (standard, steepness)


def _normalization_backward(
    layer: Normalization, extra: tuple[Array, Array], read: Read, error: Array, emit: Emit
) -> Array:
    standard, steepness = extra
    axes = _normalized_axes(layer, standard)
    others = tuple(range(standard.ndim - 1))
    scale = read("scale").copy()
    emit("scale", np.sum(error * standard, axis=others))
    emit("shift", error.sum(axis=others))
    error *= scale
    along = np.mean(error * standard, axis=axes, keepdims=True)
    error -= error.mean(axis=axes, keepdims=True)
    error -= standard * along
    error *= steepness
    return error


# ----------------------------------------------------------------------------- recurrence


@dataclass
class Cells:
    """Everything a recurrent layer read and computed: (samples, rows, ...) each.

    `gates` hold the values after their nonlinearity; `cell` is the LSTM's memory, `candidate` what
    the GRU's new state takes from the old one before its reset gate.
    """

    inputs: Array
    outputs: Array
    gates: Array
    cell: Array | None = None
    candidate: Array | None = None


def recur(
    layer: Recurrent, weight: Array, recurrent: Array, bias: Array, inputs: Array
) -> tuple[Array, Cells]:
    """Return the state after every row, and the gates.

    Gates in order: rnn h; gru reset, update, new; lstm input, forget, cell, output. As in torch,
    the GRU's reset gate acts on the product with the old state; recurrent biases are zero.
    """
    samples, rows, _ = inputs.shape
    units = layer.units
    gates = inputs.reshape(samples * rows, -1) @ weight.T
    gates += bias
    gates = gates.reshape(samples, rows, -1)
    outputs = gates if layer.kind == "rnn" else np.empty((samples, rows, units), np.float32)
    state = np.zeros((samples, units), np.float32)
    cells = Cells(inputs, outputs, gates)
    if layer.kind == "lstm":
        cells.cell = np.empty_like(outputs)
    if layer.kind == "gru":
        cells.candidate = np.empty_like(outputs)
    memory = np.zeros((samples, units), np.float32)
    for row in range(rows):
        now = gates[:, row]  # a view: activated in place
        from_state = state @ recurrent.T
        if layer.kind == "rnn":
            now += from_state
            state = np.tanh(now, out=now)
            continue
        if layer.kind == "gru":
            assert cells.candidate is not None
            now[:, : 2 * units] += from_state[:, : 2 * units]
            activate("sigmoid", now[:, : 2 * units], now[:, : 2 * units])
            reset, update, new = (now[:, k * units : (k + 1) * units] for k in range(3))
            cells.candidate[:, row] = from_state[:, 2 * units :]
            new += reset * from_state[:, 2 * units :]
            np.tanh(new, out=new)
            state = new + update * (state - new)
        else:
            assert cells.cell is not None
            now += from_state
            activate("sigmoid", now[:, : 2 * units], now[:, : 2 * units])
            activate("sigmoid", now[:, 3 * units :], now[:, 3 * units :])
            np.tanh(now[:, 2 * units : 3 * units], out=now[:, 2 * units : 3 * units])
            enter, keep, new, leave = (now[:, k * units : (k + 1) * units] for k in range(4))
            memory = keep * memory + enter * new
            cells.cell[:, row] = memory
            state = leave * np.tanh(memory)
        outputs[:, row] = state
    return outputs, cells


def _before(values: Array) -> Array:
    """Return what stood one row earlier: zeros before the first row."""
    earlier = np.zeros_like(values)
    earlier[:, 1:] = values[:, :-1]
    return earlier


def _recurrent_backward(
    layer: Recurrent,
    cells: Cells,
    read: Read,
    error: Array,
    emit: Emit,
    propagate: bool,
    needed: bool,
) -> Array | None:
    inputs, outputs = cells.inputs, cells.outputs
    samples, rows, width = inputs.shape
    earlier = _before(outputs)
    if propagate:
        on_input, on_state = _through_time(layer, cells, outputs, earlier, read("recurrent"), error)
    else:
        memory = None if cells.cell is None else _before(cells.cell)
        on_input, on_state, _ = _cell(
            layer, cells.gates, earlier, cells.cell, memory, cells.candidate, error, None
        )
    flat = on_input.reshape(samples * rows, -1)
    passed = (flat @ read("weight")).reshape(inputs.shape) if needed else None
    emit("weight", flat.T @ inputs.reshape(-1, width))
    emit("recurrent", on_state.reshape(samples * rows, -1).T @ earlier.reshape(-1, layer.units))
    emit("bias", flat.sum(axis=0))
    return passed


def _cell(
    layer: Recurrent,
    gates: Array,
    earlier: Array,
    cell: Array | None,
    memory: Array | None,
    candidate: Array | None,
    error: Array,
    memory_error: Array | None,
) -> tuple[Array, Array, Array | None]:
    """Return errors at the pre-activations fed by the input and by the state, and at the memory.

    Works on any leading axes: one row of a sequence, or all rows at once.

    Args:
      earlier, memory: state and LSTM memory before the row.
      memory_error: what reaches the LSTM's memory from later rows.
    """
    units = layer.units
    parts = [gates[..., k * units : (k + 1) * units] for k in range(layer.gates)]
    result = np.empty_like(gates)
    slots = [result[..., k * units : (k + 1) * units] for k in range(layer.gates)]
    if layer.kind == "rnn":
        np.multiply(error, 1 - np.square(gates), out=result)
        return result, result, None
    if layer.kind == "gru":
        assert candidate is not None
        reset, update, new = parts
        np.multiply(error * (1 - update), 1 - np.square(new), out=slots[2])
        np.multiply(error * (earlier - new), update * (1 - update), out=slots[1])
        np.multiply(slots[2] * candidate, reset * (1 - reset), out=slots[0])
        on_state = result.copy()
        on_state[..., 2 * units :] *= reset
        return result, on_state, None
    assert cell is not None and memory is not None
    enter, keep, new, leave = parts
    bounded = np.tanh(cell)
    on_memory = error * leave * (1 - np.square(bounded))
    if memory_error is not None:
        on_memory += memory_error
    np.multiply(error * bounded, leave * (1 - leave), out=slots[3])
    np.multiply(on_memory * new, enter * (1 - enter), out=slots[0])
    np.multiply(on_memory * memory, keep * (1 - keep), out=slots[1])
    np.multiply(on_memory * enter, 1 - np.square(new), out=slots[2])
    return result, result, on_memory * keep


def _through_time(
    layer: Recurrent, cells: Cells, outputs: Array, earlier: Array, recurrent: Array, error: Array
) -> tuple[Array, Array]:
    """Return the exact errors at the pre-activations of all rows: backpropagation through time."""
    on_input = np.empty_like(cells.gates)
    on_state = on_input if layer.kind != "gru" else np.empty_like(cells.gates)
    later = np.zeros_like(outputs[:, 0])
    memory_error: Array | None = np.zeros_like(later) if cells.cell is not None else None
    memory = None if cells.cell is None else _before(cells.cell)
    for row in reversed(range(outputs.shape[1])):
        total = error[:, row] + later
        on_input[:, row], by_state, memory_error = _cell(
            layer,
            cells.gates[:, row],
            earlier[:, row],
            None if cells.cell is None else cells.cell[:, row],
            None if memory is None else memory[:, row],
            None if cells.candidate is None else cells.candidate[:, row],
            total,
            memory_error,
        )
        later = by_state @ recurrent
        if layer.kind == "gru":
            on_state[:, row] = by_state
            units = layer.units
            later += total * cells.gates[:, row, units : 2 * units]
    return on_input, on_state
