"""A sample is given once for all its points, and computed once until the prompt is read."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx_ir as ir
from places import ROOT

from edge_train.arrays.parameters import Parameters
from edge_train.export.shared_sample import share_sample
from edge_train.formats.artifact import open_artifact
from edge_train.runtimes.onnx.diffusion import OnnxDiffusion

POINTS = 5


@pytest.fixture
def opened():
    """Return a function that opens an artifact."""
    runtimes = []

    def make(path) -> OnnxDiffusion:
        artifact = open_artifact(path)
        start = {"token": np.zeros((1, artifact.manifest.text_widths[0]), np.float32)}
        runtime = OnnxDiffusion(
            artifact, Parameters(start), device="cpu", token_ids=[range(400)], threads=1
        )
        runtimes.append(runtime)
        return runtime

    yield make
    for runtime in runtimes:
        runtime.close()


def a_step(runtime, samples):
    draw = np.random.default_rng(0)
    shapes = {value.name: value.shape for value in runtime.session.get_inputs()}
    latents = draw.standard_normal((samples, *shapes["latents"][1:])).astype(np.float32)
    ids = draw.integers(0, 400, (samples, shapes["ids"][1]))
    ids[:, 4] = -1
    batch = {"latents": latents, "target": latents[::-1], "ids": ids}
    batch["timesteps"] = np.arange(samples) * 300 + 50
    width = runtime.parameters["token"].shape
    points = [{"token": draw.standard_normal(width).astype(np.float32)} for _ in range(POINTS)]
    return batch, points


def lengths(runtime, batch, points):
    return [
        {name: len(values) for name, values in feeds.items()}
        for _, feeds in runtime.feeds(batch, points, 64)
    ]


@pytest.mark.parametrize("quant", ["none", "int8-fast", "int4"])
def test_the_points_of_a_sample_are_given_it_once(exported, opened, quant) -> None:
    runtime = opened(exported.artifacts[quant])
    (found,) = lengths(runtime, *a_step(runtime, 1))
    assert [found[name] for name in ("latents", "target", "timesteps")] == [1, 1, 1]
    assert [found[name] for name in ("ids", "rows", "token")] == [POINTS] * 3


def test_two_samples_in_a_call_are_given_for_every_point(exported, opened) -> None:
    runtime = opened(exported.artifacts["none"])
    (found,) = lengths(runtime, *a_step(runtime, 2))
    assert set(found.values()) == {2 * POINTS}


def test_once_and_for_every_point_are_the_same_losses(exported, opened) -> None:
    """On the float graph, whose sums differ in order at most; int8 rounds that to a neighbour."""
    runtime = opened(exported.artifacts["none"])
    batch, points = a_step(runtime, 1)
    once = runtime.forward(batch, points)
    runtime._given_once = ()
    np.testing.assert_allclose(runtime.forward(batch, points), once, rtol=1e-5)


def test_what_comes_before_the_prompt_is_computed_once(exported) -> None:
    graph = ir.load(exported.artifacts["int8-fast"] / "step.onnx").graph
    once = {value for value in graph.inputs if value.shape[0] == "samples"}
    assert {value.name for value in once} == {"latents", "target", "timesteps"}
    many, kinds = set(graph.inputs) - once, []
    for node in graph:
        if not many.isdisjoint(node.inputs):
            many.update(node.outputs)
        elif not once.isdisjoint(node.inputs):
            once.update(node.outputs)
            kinds.append(node.op_type)
    assert kinds.count("Conv") >= 3  # conv_in, and both of the first block
    assert kinds.count("MultiHeadAttention") == 1  # of the sample with itself


def test_an_artifact_from_before_is_given_its_sample_for_every_point(opened) -> None:
    runtime = opened(ROOT / "tests" / "golden" / "artifact-v1")
    (found,) = lengths(runtime, *a_step(runtime, 1))
    assert set(found.values()) == {POINTS}


def test_a_graph_that_mixes_sample_and_prompt_otherwise_stays() -> None:
    floats = ir.TensorType(ir.DataType.FLOAT)
    values = [
        ir.Value(name=name, shape=ir.Shape(["batch", 4, 4]), type=floats)
        for name in ("latents", "token")
    ]
    met = ir.node("MatMul", values)
    met.outputs[0].name, met.outputs[0].type = "loss", floats
    graph = ir.Graph(values, met.outputs, nodes=[met], opset_imports={"": 18})
    assert not share_sample(ir.Model(graph, ir_version=10))
    assert [value.shape[0] for value in values] == ["batch", "batch"]
    assert list(met.inputs) == values and len(graph) == 1
