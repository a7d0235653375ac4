"""The lines of a report name a model that other programs can open, or say that none is known."""

import json
import shutil

import pytest
from places import GOLDEN

from edge_train.formats.embedded import EMBEDDED
from edge_train.recipe import to_toml
from edge_train.records.folder import RunFolder
from edge_train.tasks.personalize.loading import model_for_others, ways_to_load, ways_to_load_lora
from edge_train.tasks.personalize.recipe import PersonalizeRecipe


def run_on(folder, model):
    """Return the folder of a run whose recipe names a model by its whole path."""
    folder.mkdir()
    RunFolder(folder).recipe.write_text(to_toml(PersonalizeRecipe(model=str(model))))
    return folder


def artifact_of(folder, origin):
    folder.mkdir()
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    manifest["origin"]["model"] = str(origin)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def diffusers_lines(model):
    return dict(ways_to_load(GOLDEN / "word.safetensors", "<my-dog>", model))["diffusers"]


def test_a_run_on_an_artifact_names_the_folder_that_was_exported(tmp_path):
    origin = tmp_path / "sd15"
    run = run_on(tmp_path / "run", artifact_of(tmp_path / "art", origin))
    assert model_for_others(run, "art", exported=True) is None  # it is not there
    origin.mkdir()
    (origin / "model_index.json").write_text("{}")
    found = model_for_others(run, "art", exported=True)
    assert found == str(origin)
    assert f"model = {json.dumps(str(origin))}\n" in diffusers_lines(found)


@pytest.mark.parametrize("said", ["sd15", "./sd15"])
def test_a_folder_that_an_artifact_calls_by_its_name_is_found_beside_it(
    tmp_path, monkeypatch, said
):
    run = run_on(tmp_path / "run", artifact_of(tmp_path / "art", said))
    monkeypatch.chdir(tmp_path / "run")  # a folder of that name here is another one
    for folder in (tmp_path / "run" / "sd15", tmp_path / "sd15"):
        assert model_for_others(run, "art", exported=True) is None
        folder.mkdir()
        (folder / "model_index.json").write_text("{}")
    assert model_for_others(run, "art", exported=True) == str(tmp_path / "sd15")


@pytest.mark.parametrize("name", [EMBEDDED, "stable-diffusion-v1-5/stable-diffusion-v1-5"])
def test_a_run_on_an_artifact_of_a_known_model_names_that_one(tmp_path, name):
    run = run_on(tmp_path / "run", artifact_of(tmp_path / "art", name))
    assert model_for_others(run, "art", exported=True) == name


@pytest.mark.parametrize("name", ["./small", "small", "../models/sd15"])
def test_an_artifact_that_names_no_lasting_place_is_said_to(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    run = run_on(tmp_path / "run", artifact_of(tmp_path / "art", name))
    assert model_for_others(run, "art", exported=True) is None
    lines = diffusers_lines(None)
    assert 'model = "MODEL"  # the folder or hub id of the model that was exported\n' in lines
    compile(lines, "lines", "exec")


def test_an_artifact_that_is_gone_or_damaged_is_never_named(tmp_path):
    art = artifact_of(tmp_path / "art", EMBEDDED)
    run = run_on(tmp_path / "run", art)
    (art / "manifest.json").write_text("{")
    assert model_for_others(run, "art", exported=True) is None
    shutil.rmtree(art)
    assert model_for_others(run, "art", exported=True) is None


def test_a_model_folder_is_named_by_its_whole_path(tmp_path):
    run = run_on(tmp_path / "run", tmp_path / "sd15")
    found = model_for_others(run, "sd15", exported=False)
    assert found == str(tmp_path / "sd15")
    lora = dict(ways_to_load_lora(run / "lora", "my-dog", "my-dog dog", found))["diffusers"]
    assert f"model = {json.dumps(found)}\n" in lora


def test_without_its_recipe_a_run_is_on_what_its_journal_says(tmp_path):
    assert model_for_others(tmp_path, "some/model", exported=False) == "some/model"
    assert model_for_others(tmp_path, EMBEDDED, exported=True) == EMBEDDED


@pytest.mark.parametrize("name", ["x" * 10_000, "~nobody-here/sd15", "a\0b"])
def test_a_name_that_no_file_can_have_is_no_error(tmp_path, name):
    assert model_for_others(tmp_path, name, exported=False) == name
    assert model_for_others(tmp_path, name, exported=True) is None
    run = run_on(tmp_path / "run", artifact_of(tmp_path / "art", name))
    assert model_for_others(run, "art", exported=True) is None
