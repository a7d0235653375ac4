"""A group normalisation in fewer nodes is the same normalisation."""

import numpy as np
import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import onnx_ir as ir

from edge_train.export.group_norms import join_scale_and_shift
from edge_train.runtimes.onnx.engine import load_engine, session_settings

GROUPS, CHANNELS, SIDE = 2, 6, 4


def constant(name, array) -> ir.Value:
    held = ir.tensor(array, name=name)
    kind = ir.TensorType(held.dtype)
    return ir.Value(name=name, const_value=held, shape=ir.Shape(array.shape), type=kind)


def exported(axes=(1, 2)) -> ir.Model:
    """Return what the exporter writes for a group normalisation."""
    draw, floats = np.random.default_rng(0), ir.TensorType(ir.DataType.FLOAT)
    shape = ir.Shape(["batch", CHANNELS, SIDE, SIDE])
    x = ir.Value(name="x", shape=shape, type=floats)
    held = {
        "groups": np.array([0, GROUPS, -1]),
        "one": np.ones(GROUPS, np.float32),
        "none": np.zeros(GROUPS, np.float32),
        "weight": draw.standard_normal(CHANNELS).astype(np.float32),
        "bias": draw.standard_normal(CHANNELS).astype(np.float32),
        "axes": np.array(axes),
    }
    values = {name: constant(name, array) for name, array in held.items()}
    nodes = []

    def op(kind, *inputs, out=None, **attributes):
        node = ir.node(kind, list(inputs), attributes)
        node.outputs[0].name = f"{kind}{len(nodes)}"
        node.outputs[0].shape = out and ir.Shape(out)
        node.outputs[0].type = None if kind == "Shape" else floats
        nodes.append(node)
        return node.outputs[0]

    flat = op("Reshape", x, values["groups"])
    normal = op("InstanceNormalization", flat, values["one"], values["none"], epsilon=1e-5)
    back = op("Reshape", normal, op("Shape", x))
    wide = [1, 1, 1]
    for axis in set(range(3)) - set(axes):
        wide[axis] = CHANNELS
    scaled = op("Mul", back, op("Unsqueeze", values["weight"], values["axes"], out=wide))
    shift = op("Unsqueeze", values["bias"], values["axes"], out=wide)
    shifted = op("Add", scaled, shift, out=list(shape))
    graph = ir.Graph(
        [x], [shifted], nodes=nodes, initializers=list(values.values()), opset_imports={"": 18}
    )
    return ir.Model(graph, ir_version=10)


def run(model, x):
    data = ir.to_proto(model).SerializeToString()
    engine = load_engine()
    session = engine.InferenceSession(data, session_settings(1), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_fewer_nodes_give_the_same_numbers() -> None:
    model, x = exported(), np.random.default_rng(1).standard_normal((3, CHANNELS, SIDE, SIDE))
    x = x.astype(np.float32)
    before = run(model, x)
    assert join_scale_and_shift(model) == 1
    kinds = [node.op_type for node in model.graph]
    assert "BatchNormalization" in kinds and "Mul" not in kinds and "Add" not in kinds
    # A product and a sum, rounded once or twice.
    np.testing.assert_allclose(run(model, x), before, rtol=1e-6, atol=1e-6)


def test_what_only_looks_like_one_stays() -> None:
    """A scale along another axis is none of channels."""
    model = exported(axes=(0, 1))
    assert join_scale_and_shift(model) == 0
    assert "Mul" in [node.op_type for node in model.graph]


def test_an_export_has_them_all_joined(request) -> None:
    pytest.importorskip("torch")
    artifacts = request.getfixturevalue("exported").artifacts
    graph = ir.load(artifacts["int8-fast"] / "step.onnx").graph
    normal = [node for node in graph if node.op_type == "InstanceNormalization"]
    joined = [node for node in graph if node.op_type == "BatchNormalization"]
    assert len(normal) == len(joined) > 0
