"""The ONNX runtime needs no torch, repeats itself bit for bit, and reads only what it is told."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_train.arrays.parameters import Parameters
from edge_train.errors import InputError, ModelError
from edge_train.formats.artifact import open_artifact

pytest.importorskip("onnxruntime")

from edge_train.runtimes.onnx import engine as onnx_engine
from edge_train.runtimes.onnx import vae as onnx_vae
from edge_train.runtimes.onnx.diffusion import OnnxDiffusion

GOLDEN = Path(__file__).parents[1] / "golden" / "artifact-v1"


def a_batch(samples: int = 3):
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 500, (samples, 16))
    ids[:, 4], ids[:, 5] = -1, -2
    return {
        "latents": draw.standard_normal((samples, 4, 8, 8)).astype(np.float32),
        "timesteps": np.arange(samples) * 300 + 50,
        "target": draw.standard_normal((samples, 4, 8, 8)).astype(np.float32),
        "ids": ids,
    }


def vectors(scale: float = 0.1, count: int = 2):
    draw = np.random.default_rng(1)
    return {"token": np.float32(scale) * draw.standard_normal((count, 16), np.float32)}


@pytest.fixture
def make_runtime():
    opened = []

    def make(**options):
        options = {"threads": 1, "device": "cpu", "token_ids": [range(500)]} | options
        runtime = OnnxDiffusion(open_artifact(GOLDEN), Parameters(vectors()), **options)
        opened.append(runtime)
        return runtime

    yield make
    for runtime in opened:
        runtime.close()


def test_a_loss_is_the_mean_square_of_the_prediction_error(make_runtime) -> None:
    runtime, batch = make_runtime(), a_batch()
    expected = np.square(runtime.predict(batch, vectors()) - batch["target"]).mean((1, 2, 3))
    np.testing.assert_allclose(runtime.forward(batch, [vectors()])[0], expected, rtol=1e-5)


def test_points_and_samples_are_told_apart(make_runtime) -> None:
    runtime, batch = make_runtime(), a_batch()
    points = [vectors(0.1), vectors(5.0)]
    losses = runtime.forward(batch, points)
    assert losses.shape == (2, 3)
    runtime.batch_limit = 1
    alone = runtime.forward(batch, points)
    np.testing.assert_allclose(losses, alone, rtol=1e-5)  # another order of additions
    assert (losses[0] != losses[1]).all()


def test_every_vector_of_a_token_has_its_own_place(make_runtime) -> None:
    runtime, batch = make_runtime(), a_batch()
    ours = vectors()
    swapped = {"token": ours["token"][::-1].copy()}
    exchanged = {**batch, "ids": np.where(batch["ids"] < 0, -3 - batch["ids"], batch["ids"])}
    first, other = runtime.forward(batch, [ours]), runtime.forward(batch, [swapped])
    assert (first != other).all()
    np.testing.assert_array_equal(runtime.forward(exchanged, [swapped]), first)


def test_another_session_gives_the_same_bits(make_runtime) -> None:
    batch = a_batch()
    first, second = (make_runtime().forward(batch, [vectors()]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_lean_mode_computes_the_same(make_runtime) -> None:
    batch = a_batch()
    usual = make_runtime().forward(batch, [vectors()])
    lean = make_runtime(lean=True).forward(batch, [vectors()])
    np.testing.assert_allclose(lean, usual, rtol=1e-5)  # kernels without packed weights


def test_the_batch_and_the_parameters_are_left_alone(make_runtime) -> None:
    runtime, batch = make_runtime(), a_batch()
    copies = {name: value.copy() for name, value in batch.items()}
    runtime.forward(batch, [vectors(3.0)])
    runtime.predict(batch, vectors(3.0))
    for name, value in copies.items():
        np.testing.assert_array_equal(batch[name], value)
    np.testing.assert_array_equal(runtime.parameters["token"], vectors()["token"])


def test_ids_that_were_not_announced_are_refused(make_runtime) -> None:
    runtime = make_runtime(token_ids=[[1, 2]])
    with pytest.raises(ValueError, match="were not in token_ids"):
        runtime.forward(a_batch(), [vectors()])


@pytest.mark.parametrize("device", ["qnn", "directml", "tensorrt"])
def test_a_device_that_is_not_offered_is_refused(make_runtime, device) -> None:
    with pytest.raises(InputError, match=f"device '{device}' is not offered.*it has cpu"):
        make_runtime(device=device)


def test_auto_says_why(make_runtime) -> None:
    runtime = make_runtime(device="auto")
    assert (runtime.device, runtime.dtype) == ("cpu", "float32")
    assert runtime.reason


def test_a_graph_that_the_engine_cannot_read_is_one_sentence(tmp_path) -> None:
    path = tmp_path / "step.onnx"
    path.write_bytes(b"not a graph")
    provider = onnx_engine.pick_provider("cpu", "none")
    with pytest.raises(ModelError, match="cannot load it"):
        onnx_engine.open_session(path, provider, threads=1, options={})


def test_two_distributions_of_the_engine_are_refused(monkeypatch) -> None:
    owners = ["onnxruntime", "onnxruntime-training-cpu"]
    monkeypatch.setattr(onnx_engine, "_owners", lambda: owners)
    with pytest.raises(InputError, match="overwrite each other's files; `pip uninstall -y onnx"):
        onnx_engine.load_engine()


def test_no_engine_names_the_extra(monkeypatch) -> None:
    monkeypatch.setattr(onnx_engine, "_owners", list)
    with pytest.raises(InputError, match=r"pip install edge-train\[device\]"):
        onnx_engine.load_engine()


def test_pictures_survive_the_vae_within_its_range() -> None:
    artifact = open_artifact(GOLDEN)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    mean, deviation = onnx_vae.encode_photos(artifact, images, "cpu", 1)
    assert mean.shape == deviation.shape == (3, 4, 8, 8)
    assert (deviation > 0).all()
    pictures = onnx_vae.decode_latents(artifact, mean, "cpu", 1)
    assert (pictures.shape, pictures.dtype) == ((3, 32, 32, 3), np.uint8)


def test_a_forward_pass_imports_no_torch() -> None:
    script = (
        "import sys, pathlib\n"
        "from edge_train.runtimes.onnx.diffusion import forward_peak\n"
        f"assert forward_peak(pathlib.Path({str(GOLDEN)!r})) > 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
