"""Let a step's graph take its sample once for all points of a call.

The points of a zeroth-order step differ in the token's vectors alone. What a denoiser computes
before it first looks at the prompt is the same at each of them, and may be computed once.
"""

import onnx_ir as ir
from onnx_ir import tensor

SAMPLES = "samples"  # the name of the first length of what may be given once
_GIVEN_ONCE = ("latents", "timesteps", "target")
_BROADCAST = ("Add", "Sub", "Mul")  # take one beside many as they are
_WIDENED = ("MultiHeadAttention", "Concat")  # take as many of everything
_POINTS = "token"
_INTEGERS = ir.TensorType(ir.DataType.INT64)


def share_sample(model: ir.Model) -> bool:
    """Rewrite a graph whose inputs all have the same first length; return whether it was done.

    Afterwards `latents`, `timesteps` and `target` may have the first length of `token`, or 1. A
    graph in which they meet the prompts in any other way than denoisers do stays as it is.
    """
    graph = model.graph
    once = {value for value in graph.inputs if value.name in _GIVEN_ONCE}
    points = next(value for value in graph.inputs if value.name == _POINTS)
    many = set(graph.inputs) - once
    widened: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if many.isdisjoint(inputs):
            once.update(node.outputs if once.intersection(inputs) else ())
            continue
        many.update(node.outputs)
        for place, value in enumerate(node.inputs):
            if value not in once:
                continue
            if node.op_type in _WIDENED and _rank(value):
                widened.setdefault(value, []).append((node, place))
            elif node.op_type not in _BROADCAST or len({_rank(value) for value in inputs}) != 1:
                return False
    for value, uses in widened.items():
        every = _widen(graph, value, points)
        for node, place in uses:
            node.replace_input_with(place, every)
    name = None if points.shape is None else points.shape[0]
    for value in once:
        if value.shape is not None and len(value.shape) and value.shape[0] == name:
            value.shape = ir.Shape([SAMPLES, *list(value.shape)[1:]])
    graph.sort()
    return True


def _rank(value: ir.Value | None) -> int:
    """Return how many lengths a value has; 0 where nobody knows."""
    return 0 if value is None or value.shape is None else len(value.shape)


def _widen(graph: ir.Graph, value: ir.Value, points: ir.Value) -> ir.Value:
    """Return `value` once for each point; where it is there for each, itself."""
    count = ir.node("Shape", [points], {"start": 0, "end": 1})
    ones = tensor([1] * (_rank(value) - 1), name=f"{value.name}/others")
    shape = ir.Shape([_rank(value) - 1])
    others = ir.Value(name=ones.name, const_value=ones, shape=shape, type=_INTEGERS)
    graph.register_initializer(others)
    lengths = ir.node("Concat", [count.outputs[0], others], {"axis": 0})
    every = ir.node("Expand", [value, lengths.outputs[0]])
    for made, what in ((count, "count"), (lengths, "shape"), (every, "every")):
        made.outputs[0].name = f"{value.name}/{what}"
        graph.append(made)
    every.outputs[0].type = value.type
    first = () if points.shape is None else (points.shape[0],)
    every.outputs[0].shape = ir.Shape([*first, *list(value.shape or ())[1:]])
    return every.outputs[0]
