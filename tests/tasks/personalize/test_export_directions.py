"""Export measures directions of a model and of earlier tokens, and a run on it draws from them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_models import make_tiny_model

from edge_train import cli
from edge_train.errors import ModelError
from edge_train.formats.artifact import open_artifact
from edge_train.formats.tensor_store import load_metadata
from edge_train.formats.token_directions import DIRECTIONS, read_directions, write_directions
from edge_train.rng import Key
from edge_train.runtimes.torch.diffusion import TorchDiffusion
from edge_train.tasks.personalize import export_directions, parts
from edge_train.tasks.personalize.earlier_tokens import LEAST
from edge_train.tasks.personalize.export_directions import (
    copy_directions,
    make_directions,
    moves_of,
)
from edge_train.tasks.personalize.objective import build_cache
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

pytestmark = pytest.mark.process


@pytest.fixture(scope="module", params=["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def job(request, tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny") / request.param, request.param)
    return parts.check(PersonalizeRecipe(model=str(folder), class_word="thing", threads=1))


def task_of(job):
    side = job.recipe.resolution // job.model.latent_scale
    mean = np.zeros((1, job.model.latent_channels, side, side), np.float32)
    return parts.build_task(job, build_cache(mean, np.ones_like(mean), [[job.ids("a {}")]]))


def runtime_of(job):
    used = [np.unique(ids).tolist() for ids in job.ids("a {}").values()]
    return TorchDiffusion.open(
        job.model,
        parts.Parameters(job.start),
        dtype="float32",
        device="cpu",
        token_ids=[[i for i in own if i >= 0] for own in used],
        threads=1,
    )


def tokens_in(folder, job):
    (folder / "dog").mkdir(parents=True)
    names = {"token": "clip_l", "token_2": "clip_g"}
    for number in range(LEAST):
        random = np.random.default_rng(number)
        own = {n: random.standard_normal(b.shape).astype(np.float32) for n, b in job.start.items()}
        if len(own) == 2:
            own = {names[name]: value for name, value in own.items()}
        save_file(own, folder / "dog" / f"{number}.safetensors")
    return folder


def test_every_sample_has_a_token_of_its_own(job):
    runtime, task = runtime_of(job), task_of(job)
    batch = task.batch(Key(0, 0))
    moved = {name: np.stack([block, block * 1.5]) for name, block in job.start.items()}
    two = {name: values[:2] for name, values in batch.items()}
    losses, gradients = runtime.backward_each(two, moved)
    for row in range(2):
        one = {name: values[row : row + 1] for name, values in batch.items()}
        for name, block in runtime.parameters.items():
            block[...] = moved[name][row]
        alone = {}
        expected = runtime.backward(one, alone.__setitem__)
        assert losses[row] == pytest.approx(expected[0], rel=1e-5)
        for name, gradient in alone.items():
            scale = np.abs(gradient).max()
            # float32 sums in another order
            np.testing.assert_allclose(gradients[name][row], gradient, atol=1e-4 * scale)


def test_what_is_pulled_back_is_a_product_with_the_jacobian(job):
    """The gradient of a loss is such a product: of J with twice the error over its numbers."""
    runtime, task = runtime_of(job), task_of(job)
    batch = {name: values[:2] for name, values in task.batch(Key(0, 0)).items()}
    start = {name: np.stack([block] * 2) for name, block in job.start.items()}
    error = runtime.predict(batch, job.start) - batch["target"]
    _, pulled = runtime.backward_each(batch, start, 2 * error / np.float32(error[0].size))
    _, expected = runtime.backward_each(batch, start)
    for name, gradient in expected.items():
        scale = np.abs(gradient).max()
        # float32 sums in another order
        np.testing.assert_allclose(pulled[name], gradient, atol=1e-4 * scale)


def test_metric_and_prior_are_written_for_every_text_encoder(job, tmp_path, monkeypatch):
    monkeypatch.setattr(export_directions, "DRAWS", 24)
    said, path = [], tmp_path / DIRECTIONS
    moves = moves_of(job, tokens_in(tmp_path / "tokens", job))
    first = next(iter(job.start.values())).shape[1]
    assert moves.blocks["token"].shape == (LEAST, first)
    task, runtime = task_of(job), runtime_of(job)
    make_directions(job, runtime, task, path, moves=moves, large=False, say=said.append)
    for kind in ("metric", "prior"):
        found = read_directions(path, kind, job.model.sha256())
        assert found.keys() == job.start.keys()
        assert all(m.shape[1] == job.start[n].shape[1] for n, m in found.items())
    facts = json.loads(load_metadata(path)["facts"])
    assert facts["token"]["effective_dimension"] > 1
    assert facts["token prior"]["moves"] == LEAST
    assert any("effective dimensions" in line for line in said)


def beside(job, path, sha256):
    rows = {name: np.eye(2, block.shape[1], dtype=np.float32) for name, block in job.start.items()}
    facts = {"token prior": {"moves": 9}, "token": {"rank": 1}, "draws": 3}
    write_directions(path, {"prior": rows, "metric": rows}, sha256, json.dumps(facts))
    return rows


def test_a_prior_beside_the_model_is_kept_where_the_metric_is_measured(job, tmp_path, monkeypatch):
    monkeypatch.setattr(export_directions, "DRAWS", 8)
    sha256, lying = job.model.sha256(), job.model.path / DIRECTIONS
    rows = beside(job, lying, sha256)
    said, path, task, runtime = [], tmp_path / DIRECTIONS, task_of(job), runtime_of(job)
    try:
        make_directions(job, runtime, task, path, moves=None, large=False, say=said.append)
        beside(job, lying, "0" * 64)
        other = tmp_path / "other.safetensors"
        make_directions(job, runtime, task, other, moves=None, large=False, say=said.append)
    finally:
        lying.unlink()
    for name, kept in read_directions(path, "prior", sha256).items():
        np.testing.assert_array_equal(kept, rows[name])
        assert not np.array_equal(read_directions(path, "metric", sha256)[name], rows[name])
    facts = json.loads(load_metadata(path)["facts"])
    assert facts["token prior"] == {"moves": 9} and facts["draws"] == 8
    assert f"  prior: kept, from {lying}" in said
    assert any("is not kept" in line and "made with weights 0000" in line for line in said)
    with pytest.raises(ModelError, match="has no directions 'prior', only metric"):
        read_directions(other, "prior", sha256)


def test_directions_of_another_model_beside_this_one_are_left_aside_and_said(job, tmp_path):
    """They were copied into an artifact that no run took, and that said to export again."""
    lying, said = job.model.path / DIRECTIONS, []
    try:
        beside(job, lying, "0" * 64)
        copy_directions(job.model, tmp_path, said.append)
        assert not (tmp_path / DIRECTIONS).exists()
        assert said == [
            f"{lying} is left aside: damaged, or of other weights; --directions measures it anew"
        ]
        beside(job, lying, job.model.sha256())
        copy_directions(job.model, tmp_path, said.append)
        assert (tmp_path / DIRECTIONS).is_file() and len(said) == 1
    finally:
        lying.unlink()


def test_a_move_is_from_the_tokens_own_class_word(job, tmp_path):
    folder = tokens_in(tmp_path / "tokens", job)
    (folder / "dog" / "0.safetensors").rename(folder / "thing.safetensors")
    (folder / "thing").mkdir()
    (folder / "thing.safetensors").rename(folder / "thing" / "0.safetensors")
    moves = moves_of(job, folder)
    assert moves.words.count("thing") == 1
    x = np.random.default_rng(0).standard_normal(job.start["token"].shape).astype(np.float32)
    place = moves.words.index("thing")
    np.testing.assert_allclose(moves.blocks["token"][place], (x - job.start["token"])[0], rtol=1e-5)


@pytest.mark.slow
def test_an_exported_model_carries_its_directions_and_a_run_draws_from_them(
    tmp_path, photos, monkeypatch
):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(export_directions, "DRAWS", 24)
    model = make_tiny_model(tmp_path / "sd1", "sd1")
    job = parts.check(PersonalizeRecipe(model=str(model), class_word="thing", threads=1))
    tokens, out = tokens_in(tmp_path / "tokens", job), tmp_path / "artifact"
    words = ["export", str(model), str(out), "--tokens", str(tokens), "--quant", "none"]
    assert cli.main([*words, "--threads", "1"]) == 0
    assert DIRECTIONS in open_artifact(out).manifest.files
    run = ["run", str(photos), "--model", str(out), "--out", str(tmp_path / "run"), "--steps", "4"]
    few = ["--threads", "1", "--no-previews", "--epsilon", "0.1", "--class", "dog"]
    assert cli.main([*run, *few, "--directions", "prior"]) == 0
