"""What shares a call shares a scale: the points of a sample do, two samples never do."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from edge_train.arrays.parameters import Parameters
from edge_train.formats.artifact import open_artifact
from edge_train.quant import of_artifacts, quants
from edge_train.runtimes.onnx.diffusion import OnnxDiffusion

SAMPLES, POINTS = 3, 4
OLD = {"calls": ""}


@pytest.fixture
def opened(exported):
    """Return a function that opens an artifact of a profile, its manifest changed."""
    runtimes = []

    def make(quant, **changes) -> OnnxDiffusion:
        artifact = open_artifact(exported.artifacts[quant])
        artifact = replace(artifact, manifest=replace(artifact.manifest, **changes))
        start = {"token": np.zeros((1, artifact.manifest.text_widths[0]), np.float32)}
        runtime = OnnxDiffusion(
            artifact, Parameters(start), device="cpu", token_ids=[range(500)], threads=1
        )
        runtimes.append(runtime)
        return runtime

    yield make
    for runtime in runtimes:
        runtime.close()


def a_step(runtime):
    """Return samples that need very different scales, and points."""
    draw = np.random.default_rng(0)
    _, channels, side, _ = runtime.session.get_inputs()[0].shape
    length = next(v.shape[1] for v in runtime.session.get_inputs() if v.name == "ids")
    latents = draw.standard_normal((SAMPLES, channels, side, side)).astype(np.float32)
    latents *= np.float32([1, 5, 25])[:, None, None, None]
    ids = draw.integers(0, 500, (SAMPLES, length))
    ids[:, 4] = -1
    batch = {"latents": latents, "target": latents, "ids": ids}
    batch["timesteps"] = np.arange(SAMPLES) * 300 + 50
    shape = runtime.parameters["token"].shape
    points = [{"token": draw.standard_normal(shape).astype(np.float32)} for _ in range(POINTS)]
    return batch, points


def alone(batch, sample):
    return {name: values[sample : sample + 1] for name, values in batch.items()}


@pytest.mark.parametrize("quant", of_artifacts())
def test_an_export_says_how_its_calls_are_made(exported, quant) -> None:
    said = open_artifact(exported.artifacts[quant]).manifest.calls
    assert said == ("points of a sample" if quants.get(quant).rounds_activations else "")


@pytest.mark.parametrize("quant", ["int8-fast", "int4"])
def test_points_of_a_sample_share_a_call_and_samples_never_do(opened, quant) -> None:
    runtime = opened(quant)
    batch, points = a_step(runtime)
    losses = runtime.forward(batch, points)
    assert (runtime.passes, runtime.evaluations) == (SAMPLES, SAMPLES * POINTS)
    for sample in range(SAMPLES):
        own = runtime.forward(alone(batch, sample), points)
        np.testing.assert_array_equal(losses[:, sample], own[:, 0])


def test_a_limit_parts_the_points_of_a_sample(opened) -> None:
    runtime = opened("int8-fast")
    batch, points = a_step(runtime)
    runtime.batch_limit = 3
    losses = runtime.forward(batch, points)
    assert runtime.passes == 2 * SAMPLES
    for sample in range(SAMPLES):
        parts = [runtime.forward(alone(batch, sample), some) for some in (points[:3], points[3:])]
        np.testing.assert_array_equal(losses[:, sample], np.concatenate(parts)[:, 0])


@pytest.mark.parametrize("quant", ["int8-fast", "int4"])
def test_an_artifact_from_before_keeps_its_bits(opened, quant) -> None:
    """One loss a call, whatever is asked for together."""
    runtime = opened(quant, **OLD)
    batch, points = a_step(runtime)
    losses = runtime.forward(batch, points)
    assert runtime.passes == SAMPLES * POINTS
    for sample in range(SAMPLES):
        for number, point in enumerate(points):
            own = runtime.forward(alone(batch, sample), [point])
            assert own.tobytes() == losses[number, sample].tobytes()


def test_a_manifest_from_before_keeps_its_bytes(exported) -> None:
    """Runs know their model by the hash of these bytes."""
    manifest = open_artifact(exported.artifacts["int8-fast"]).manifest
    assert b'"calls"' in manifest.to_bytes()
    assert b'"calls"' not in replace(manifest, **OLD).to_bytes()
