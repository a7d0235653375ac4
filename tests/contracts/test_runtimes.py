"""Every runtime sees the same step: same key, same batch, losses within the stated error."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_train import cli
from edge_train.arrays.parameters import Parameters
from edge_train.formats.artifact import open_artifact
from edge_train.formats.diffusion_folder import open_model
from edge_train.quant import of_artifacts
from edge_train.records import journal
from edge_train.rng import Key
from edge_train.tasks.personalize.objective import Personalize, build_cache

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from places import ROOT
from tiny_models import prompt_ids

from edge_train.runtimes.onnx.diffusion import OnnxDiffusion
from edge_train.runtimes.torch.diffusion import TorchDiffusion

KEY = Key(7, 3)
RUNTIMES = (
    "torch-none",
    "torch-int8",
    "torch-int4",
    *(f"onnx-{quant}" for quant in of_artifacts()),
)


def start(width: int) -> dict:
    return {"token": 0.1 * np.random.default_rng(1).standard_normal((1, width)).astype(np.float32)}


@pytest.fixture(scope="module")
def task(exported) -> Personalize:
    draw = np.random.default_rng(0)
    mean = draw.standard_normal((4, 4, 8, 8), np.float32)
    captions = [[{"ids": np.array(prompt_ids("a", "photo", "of", -1))}]] * 4
    return Personalize(
        cache=build_cache(mean, np.full_like(mean, 0.1), captions),
        signal=open_model(exported.model).alphas_cumprod,
        prediction_type="epsilon",
        window=(300, 900),
        samples=4,
        evaluation_samples=8,
        constant={},
    )


@pytest.fixture(params=RUNTIMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def make_runtime(exported, task):
    opened = []

    def make(name: str):
        engine, _, quant = name.partition("-")
        ids = np.unique(task.cache.ids["ids"])
        token_ids = [ids[ids >= 0].tolist()]
        parameters = Parameters(start(32))
        if engine == "torch":
            runtime = TorchDiffusion.open(
                open_model(exported.model),
                parameters,
                quant=quant,
                dtype="float32",
                device="cpu",
                token_ids=token_ids,
                threads=1,
            )
        else:
            artifact = open_artifact(exported.artifacts[quant])
            runtime = OnnxDiffusion(
                artifact, parameters, device="cpu", token_ids=token_ids, threads=1
            )
        opened.append(runtime)
        return runtime

    yield make
    for runtime in opened:
        runtime.close()


def test_losses_agree_with_float_within_the_stated_error(
    make_runtime, exported, task, name
) -> None:
    batch, points = task.batch(KEY), [start(32), {"token": 3 * start(32)["token"]}]
    exact = task.loss(make_runtime("torch-none"), batch, points)
    losses = task.loss(make_runtime(name), batch, points)
    assert (losses.shape, losses.dtype) == ((2, 4), np.float32)
    quant = name.partition("-")[2]
    # Twice what the export measured where it ran. Integer sums are exact on every processor
    # (test_products.py), so that what it measured is of the graph, not of a kernel.
    stated = open_artifact(exported.artifacts[quant]).manifest.loss_tolerance
    np.testing.assert_allclose(losses, exact, rtol=stated)


def test_two_sessions_compute_the_same_bits(make_runtime, task, name) -> None:
    batch, points = task.batch(KEY), [start(32)]
    first, second = (task.loss(make_runtime(name), batch, points) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_told_other_threads_it_computes_the_same_but_for_rounding(make_runtime, task, name) -> None:
    runtime, batch, points = make_runtime(name), task.batch(KEY), [start(32)]
    one = task.loss(runtime, batch, points)
    runtime.use_threads(2)
    # sums of float32 in another order; of int8 activations a rounding may go the other way
    np.testing.assert_allclose(task.loss(runtime, batch, points), one, rtol=1e-2)
    runtime.use_threads(1)
    np.testing.assert_array_equal(task.loss(runtime, batch, points), one)


@pytest.mark.parametrize("quant", of_artifacts())
def test_another_process_computes_the_same_bits(make_runtime, exported, task, quant) -> None:
    batch = task.batch(KEY)
    expected = task.loss(make_runtime(f"onnx-{quant}"), batch, [start(32)])
    script = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from edge_train.formats.artifact import open_artifact\n"
        "from edge_train.arrays.parameters import Parameters\n"
        "from edge_train.runtimes.onnx.diffusion import OnnxDiffusion\n"
        "given = dict(np.load(sys.argv[2]))\n"
        "point = {'token': given.pop('token')}\n"
        "ids = [sorted({int(i) for i in given['ids'].ravel() if i >= 0})]\n"
        "artifact = open_artifact(Path(sys.argv[1]))\n"
        "runtime = OnnxDiffusion(artifact, Parameters(point), device='cpu', token_ids=ids, "
        "threads=1)\n"
        "print(runtime.forward(given, [point]).tobytes().hex())\n"
    )
    folder = exported.artifacts[quant]
    given = folder.parent / f"batch-{quant}.npz"
    np.savez(given, **batch, **start(32))
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(given)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected.tobytes().hex()


def test_a_point_does_not_change_the_parameters(make_runtime, task, name) -> None:
    runtime = make_runtime(name)
    before = runtime.parameters.copy()
    runtime.forward(task.batch(KEY), [{"token": 7 * start(32)["token"]}])
    np.testing.assert_array_equal(runtime.parameters["token"], before["token"])


def test_a_loss_depends_on_its_own_sample_only(make_runtime, task, name) -> None:
    runtime, batch = make_runtime(name), task.batch(KEY)
    together = runtime.forward(batch, [start(32)])[0]
    alone = [
        runtime.forward({key: value[i : i + 1] for key, value in batch.items()}, [start(32)])[0, 0]
        for i in range(4)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-5)  # kernels differ by batch size


def test_predictions_have_the_shape_of_latents(make_runtime, task, name) -> None:
    batch = {key: value for key, value in task.batch(KEY).items() if key != "target"}
    output = make_runtime(name).predict(batch, start(32))
    assert (output.shape, output.dtype) == (batch["latents"].shape, np.float32)
    assert np.isfinite(output).all()


def test_losses_are_the_sums_of_squares_of_residuals(make_runtime, task, name) -> None:
    runtime, batch = make_runtime(name), task.batch(KEY)
    points = [start(32), {"token": 3 * start(32)["token"]}]
    losses, before = task.loss(runtime, batch, points), runtime.passes
    residuals = task.residuals(runtime, batch, points)
    assert (residuals.shape[:2], residuals.dtype) == ((2, 4), np.float32)
    # a mean of 256 float32 squares, taken in another order
    np.testing.assert_allclose(np.square(residuals).sum(axis=2), losses, rtol=1e-5)
    assert runtime.passes == 2 * before  # the same calls again


def test_residuals_are_weighted_as_losses_are(make_runtime, task) -> None:
    runtime, batch = make_runtime("torch-none"), task.batch(KEY)
    weights = np.random.default_rng(3).uniform(0, 2, (4, 1, 8, 8)).astype(np.float32)
    batch = {**batch, "weights": weights}
    losses = task.loss(runtime, batch, [start(32)])
    residuals = task.residuals(runtime, batch, [start(32)])
    np.testing.assert_allclose(np.square(residuals).sum(axis=2), losses, rtol=1e-5)


def shape_of(value):
    """Return what of a journal's record is format: keys and types, not the number of them."""
    if isinstance(value, dict):
        return {key: shape_of(own) for key, own in value.items()}
    return type(value).__name__


@pytest.fixture
def run(tmp_path):
    photos = ROOT / "edge_train" / "data" / "photos" / "bag"

    def run(model: Path, name: str):
        few = ["--steps", "2", "--threads", "1", "--preview-steps", "1", "--prompt", "a {}"]
        words = [str(photos), "--model", str(model), "--class", "dog", *few]
        words += ["--method", "zo", "--epsilon", "0.1"]  # random weights: 8 bits drown the slopes
        assert cli.main(["run", *words, "--out", str(tmp_path / name)]) == 0
        records, _ = journal.read(tmp_path / name / "journal.jsonl")
        return records

    return run


def test_all_runtimes_write_one_journal_format(exported, run) -> None:
    models = {"torch": exported.model, **exported.artifacts}
    formats = []
    for name, model in models.items():
        records = run(model, name)
        record = {kind: shape_of(r) for r in records if (kind := r["kind"]) != "event"}
        formats.append(json.dumps(record, sort_keys=True))
    assert len(set(formats)) == 1
