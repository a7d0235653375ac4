"""A recipe survives TOML, and every wrong word in it is named."""

import dataclasses

import pytest
from edge_train.methods.defaults import resolve

from edge_train import recipe as recipes
from edge_train.errors import InputError
from edge_train.recipe import Recipe


def test_every_key_survives_toml(tmp_path):
    recipe = Recipe(
        photos='we"ird\\folder\n',
        token="<my-dog>",
        prompts=("a photo of {}", "{} on the moon"),
        window=(500, 900),
        cap_bytes=8_000_000_000,
        learning_rate=5e-3,
        flips=False,
        steps=7,
    )
    (tmp_path / "r.toml").write_text(recipes.to_toml(recipe))
    assert recipes.read(tmp_path / "r.toml") == recipe


def test_a_resolved_recipe_has_no_gaps_that_training_reads():
    resolved = resolve(Recipe(method="zo"), {"window": (1, 2), "resolution": 32, "threads": 1})
    for name in ("steps", "samples", "queries", "window", "evaluate_every", "resolution"):
        assert getattr(resolved, name) is not None, name


def test_the_zoodip_preset_is_the_papers():
    found = resolve(Recipe(preset="zoodip"), {"window": (1, 2)})
    assert (found.steps, found.queries, found.sides) == (30_000, 2, 1)
    assert (found.epsilon, found.learning_rate) == (1e-3, 5e-3)
    assert found.window == (500, 900)
    assert found.schedule == "constant"


def test_what_the_user_names_beats_every_default():
    found = resolve(Recipe(preset="zoodip", steps=9, window=(1, 3)), {"window": (7, 8)})
    assert (found.steps, found.window) == (9, (1, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "did you mean 'steps'"),
        ("steps = 'many'", "not of type int"),
        ("steps = 0", "must be from 1"),
        ("steps = true", "not of type int"),
        ("method = 'sgd'", "choose one of"),
        ("window = [900, 500]", "rising"),
        ("mem = '8 apples'", "not a size"),
        ("learning_rate = nan", "must be from"),
        ("steps = [", "not TOML"),
    ],
)
def test_bad_recipes_are_refused_in_one_sentence(tmp_path, text, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        recipes.read(tmp_path / "r.toml")
    assert "\n" not in str(caught.value).removesuffix(".")


def test_a_missing_recipe_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        recipes.read(tmp_path / "none.toml")


def test_every_recipe_value_can_reach_the_journal():
    assert recipes.as_mapping(Recipe())["steps"] is None
    assert set(recipes.as_mapping(Recipe())) == {f.name for f in dataclasses.fields(Recipe)}


@pytest.mark.parametrize(
    ("task", "key", "value", "advice"),
    [
        ("classify", "photos", "folder", "only by personalize; name data"),
        ("personalize", "data", "folder", "only by classify, language-model, network; name photos"),
        ("classify", "window", (1, 2), "only by personalize; leave it out"),
    ],
)
def test_a_key_of_another_task_is_refused_by_name(task, key, value, advice):
    with pytest.raises(InputError, match=f"{key} is not read by task '{task}', {advice}"):
        Recipe(task=task, **{key: value})


def test_auto_is_the_exact_gradient_where_the_engine_has_one():
    assert resolve(Recipe(runtime="torch"), {}).method == "backprop"
    assert resolve(Recipe(runtime="onnx"), {}).method == "zo"
    # keys that only a forward-only method reads ask for it
    assert resolve(Recipe(runtime="torch", preset="zoodip"), {}).method == "zo"
    assert resolve(Recipe(runtime="torch", queries=2), {}).method == "zo"


def test_every_task_has_a_method_of_its_own():
    found = resolve(Recipe(task="classify"), {})
    assert (found.method, found.learning_rate, found.weight_decay) == ("backprop", 5e-5, 0.01)
    with pytest.raises(InputError, match="preset 'zoodip' is for task personalize"):
        resolve(Recipe(task="classify", method="zo", preset="zoodip"), {})


def test_a_relative_rate_that_is_named_beats_an_absolute_default():
    found = resolve(Recipe(task="classify", relative_rate=0.1), {})
    assert (found.learning_rate, found.relative_rate) == (None, 0.1)


def test_keys_of_one_task_are_keys_of_a_recipe():
    assert recipes._READ_BY.keys() < {f.name for f in dataclasses.fields(Recipe)}
    readers = {task for tasks in recipes._READ_BY.values() for task in tasks}
    assert readers <= set(recipes.CHOICES["task"])


def test_paths_of_a_recipe_work_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    found = recipes.anywhere(Recipe(photos="pictures", model="model"))
    assert (found.photos, found.model) == (str(tmp_path / "pictures"), str(tmp_path / "model"))
    assert recipes.anywhere(Recipe(model="owner/name")).model == "owner/name"
