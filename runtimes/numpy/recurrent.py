"""Recurrent layers in NumPy: rnn, gru and lstm forward, and back through one row or all of time."""

from dataclasses import dataclass

import numpy as np

from edge_train.arrays.types import Array
from edge_train.formats.network import Recurrent
from edge_train.runtimes.numpy.activations import Emit, Read, activate


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


def before(values: Array) -> Array:
    """Return what stood one row earlier: zeros before the first row."""
    earlier = np.zeros_like(values)
    earlier[:, 1:] = values[:, :-1]
    return earlier


def recurrent_backward(
    layer: Recurrent,
    cells: Cells,
    read: Read,
    error: Array,
    emit: Emit,
    propagate: bool,
    needed: bool,
) -> Array | None:
    """Emit the gradients of a recurrent layer; see `numpy_layers.backward`."""
    inputs, outputs = cells.inputs, cells.outputs
    samples, rows, width = inputs.shape
    earlier = before(outputs)
    if propagate:
        on_input, on_state = _through_time(layer, cells, outputs, earlier, read("recurrent"), error)
    else:
        memory = None if cells.cell is None else before(cells.cell)
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
    memory = None if cells.cell is None else before(cells.cell)
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
