"""A run draws directions from the file beside its model, and goes on with no other file."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_models import make_tiny_model

from edge_train import cli
from edge_train.errors import InputError, ModelError
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.embedded import MODEL_FOLDER
from edge_train.formats.hub import find_model
from edge_train.formats.token_directions import DIRECTIONS, write_directions
from edge_train.records.folder import RunFolder
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.directing import METRIC_STEPS, span_steps
from edge_train.tasks.personalize.job import PersonalizeJob
from edge_train.tasks.personalize.objective import build_cache
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

pytest.importorskip("torch")
pytestmark = pytest.mark.process

WIDTH = 32
LATENTS = np.zeros((1, 4, 2, 2), np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "sd1", "sd1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "1.png")
    return folder


def placed(model, seed=0, width=WIDTH, kinds=("metric",)):
    """Write a file of directions beside a model; return its rows."""
    rows = np.random.default_rng(seed).standard_normal((3, width)).astype(np.float32)
    found = find_model(str(model))
    assert isinstance(found, ModelFolder)
    matrices = {kind: {"token": rows} for kind in kinds}
    write_directions(model / DIRECTIONS, matrices, found.sha256(), "{}")
    return rows


def words(photos, model, out):
    first = ["run", str(photos), "--model", str(model), "--out", str(out), "--class", "dog"]
    few = ["--steps", "30", "--threads", "1", "--method", "zo", "--epsilon", "0.1"]
    few += ["--evaluate-every", "10", "--evaluation-samples", "2", "--no-previews"]
    return [*first, *few, "--queries", "1", "--directions", "metric"]


def recipe(model, **options):
    common = {"model": str(model), "class_word": "dog", "method": "zo", "directions": "metric"}
    return PersonalizeRecipe(**{**common, **options})


def test_a_killed_run_ends_with_the_same_bits_and_goes_on_with_no_other_matrix(
    photos, model, tmp_path, capsys
):
    placed(model)
    out = tmp_path / "run"
    assert cli.main(words(photos, model, out)) == 0
    token = (out / "my-dog.safetensors").read_bytes()
    book = RunFolder(out).journal
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(b"".join(lines[:16]))  # as a run that was killed leaves it
    placed(model, seed=1)
    assert cli.main(["run", "--resume", str(out)]) == 2
    said = capsys.readouterr().err
    assert "are not those that this run began with" in said
    assert "put that file back" in said
    placed(model)
    assert cli.main(["run", "--resume", str(out)]) == 0
    assert (out / "my-dog.safetensors").read_bytes() == token


def test_the_matrix_is_part_of_what_a_run_began_with(photos, model):
    hashes = set()
    for seed, kind in ((0, "metric"), (1, "metric"), (1, "isotropic")):
        placed(model, seed)
        job = PersonalizeJob(recipe(model, photos=str(photos), directions=kind))
        job._cache = build_cache(LATENTS, LATENTS, [[{"ids": np.array([1, -1])}]])
        hashes.add(job.data_sha256())
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "zoodip"}, "preset 'zoodip' draws isotropic directions"),
        ({"method": "backprop"}, "directions is not read by method 'backprop'"),
        ({"directions": "prior"}, "no directions 'prior', only metric"),
    ],
)
def test_what_has_no_use_for_directions_says_so(model, options, says):
    placed(model)
    with pytest.raises((InputError, ModelError), match=says):
        parts.check(recipe(model, **options))


@pytest.mark.parametrize(
    ("options", "kinds", "chosen"),
    [
        ({}, ("metric", "prior"), "metric"),
        ({}, ("prior",), "isotropic"),
        ({"directions": "isotropic"}, ("metric",), "isotropic"),
        ({"preset": "zoodip"}, ("metric",), None),
        ({"method": "backprop"}, ("metric",), None),
        ({"relative_rate": 0.5}, ("metric",), None),
        ({"rules": 2}, ("metric",), None),  # a run that began before it was a default
    ],
)
def test_a_word_is_drawn_along_the_metric_where_it_lies_beside_the_model(
    model, options, kinds, chosen
):
    placed(model, kinds=kinds)
    job = parts.check(recipe(model, **{"directions": None, **options}))
    assert job.recipe.directions == chosen
    assert set(job.directions) == ({"token"} if chosen == "metric" else set())
    again = parts.check(job.recipe)  # as a run that goes on has it
    assert again.recipe == job.recipe
    said = [note for note in job.notes if "beside the model says" in note]
    assert len(said) == (chosen == "metric")
    advised = [note for note in job.notes if "OUT --directions` measures" in note]
    assert len(advised) == (chosen == "isotropic" and not options)
    assert not any("OUT --directions`" in note for note in again.notes)
    own = job.parts(0.1, {"token": 1.0})
    assert own.span_steps == (METRIC_STEPS if chosen == "metric" else None)


def test_a_run_along_the_metric_that_began_before_draws_from_it_to_its_end(model):
    placed(model)
    assert parts.check(recipe(model, rules=2)).parts(0.1, {"token": 1.0}).span_steps is None
    assert parts.check(recipe(model)).parts(0.1, {"token": 1.0}).span_steps == METRIC_STEPS


def test_wide_words_are_drawn_along_the_metric_to_the_end_and_begun_runs_as_they_were():
    """With 768 numbers isotropic steps raised the loss of int8-fast by a third."""
    own, start = PersonalizeRecipe(directions="metric"), {"token": np.zeros((1, 768), np.float32)}
    assert span_steps(own, start) is None
    assert span_steps(replace(own, rules=6), start) == METRIC_STEPS
    narrow = {"token": np.zeros((3, 256), np.float32)}
    assert span_steps(own, narrow) == METRIC_STEPS
    assert span_steps(own, {**narrow, "token_2": start["token"]}) is None


def test_a_run_that_began_without_the_file_goes_on_without_it(model):
    (model / DIRECTIONS).unlink(missing_ok=True)
    began = parts.check(recipe(model, directions=None)).recipe
    assert began.directions == "isotropic"
    placed(model)
    assert parts.check(began).directions == {}


@pytest.mark.parametrize("damaged", [b"", b"x" * 100])
def test_a_damaged_file_of_directions_says_what_to_do(model, damaged):
    (model / DIRECTIONS).write_bytes(damaged)
    with pytest.raises(ModelError, match="Use --directions isotropic, or export the model again"):
        parts.check(recipe(model, directions=None))


def test_a_model_without_the_file_says_how_to_make_it(model):
    (model / DIRECTIONS).unlink(missing_ok=True)
    with pytest.raises(InputError, match="has none; make it with `edge-train export`"):
        parts.check(recipe(model))


def test_a_matrix_of_another_width_is_refused(model):
    placed(model, width=WIDTH + 1)
    with pytest.raises(ModelError, match=f"is {WIDTH + 1} wide, the model's vectors have {WIDTH}"):
        parts.check(recipe(model))


def test_the_embedded_model_comes_with_a_prior_that_belongs_to_it():
    job = parts.check(PersonalizeRecipe(method="zo", threads=1, directions="prior"))
    assert job.directions["token"].shape[1] == job.start["token"].shape[1]
    assert (MODEL_FOLDER / DIRECTIONS).stat().st_size < 300_000
