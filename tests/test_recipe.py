"""A recipe survives TOML, and every wrong word in it is named."""

import pytest
from recipes import recipe_for, resolved

from edge_train.errors import InputError
from edge_train.recipe import Recipe, as_mapping, to_toml, with_absolute_paths
from edge_train.tasks import read_recipe, recipe_of, tasks


def test_every_key_survives_toml(tmp_path):
    recipe = recipe_for(
        photos='we"ird\\folder\n',
        token="<my-dog>",
        prompts=("a photo of {}", "{} on the moon"),
        window=(500, 900),
        cap_bytes=8_000_000_000,
        learning_rate=5e-3,
        flips=False,
        steps=7,
    )
    (tmp_path / "r.toml").write_text(to_toml(recipe))
    assert read_recipe(tmp_path / "r.toml") == recipe


@pytest.mark.parametrize("name", tasks.names())
def test_a_file_holds_only_the_keys_of_its_task(name, tmp_path):
    recipe = recipe_for(name)
    written = {line.split(" = ")[0] for line in to_toml(recipe).splitlines()}
    assert written <= {"task", *recipe.declared()}
    (tmp_path / "r.toml").write_text(to_toml(recipe))
    assert read_recipe(tmp_path / "r.toml") == recipe


def test_a_file_of_the_first_version_held_the_keys_of_all_tasks_and_is_read(tmp_path):
    (tmp_path / "r.toml").write_text('task = "classify"\nlearn = "object"\nvectors = 1\nsteps = 3')
    assert read_recipe(tmp_path / "r.toml") == recipe_for("classify", steps=3)
    (tmp_path / "r.toml").write_text('task = "classify"\nvectors = 2')
    with pytest.raises(InputError, match="vectors is not read by task 'classify', only by person"):
        read_recipe(tmp_path / "r.toml")


def test_a_resolved_recipe_has_no_gaps_that_training_reads():
    defaults = {"window": (1, 2), "resolution": 32, "threads": 1}
    found = resolved(method="zo", defaults=defaults)
    for name in ("steps", "samples", "queries", "window", "evaluate_every", "resolution"):
        assert getattr(found, name) is not None, name


def test_the_zoodip_preset_is_the_papers():
    found = resolved(preset="zoodip", defaults={"window": (1, 2)})
    assert (found.steps, found.queries, found.sides) == (30_000, 2, 1)
    assert (found.epsilon, found.learning_rate) == (1e-3, 5e-3)
    assert found.window == (500, 900)
    assert found.schedule == "constant"


def test_what_the_user_names_beats_every_default():
    found = resolved(preset="zoodip", steps=9, window=(1, 3), defaults={"window": (7, 8)})
    assert (found.steps, found.window) == (9, (1, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "did you mean 'steps'"),
        ("steps = 'many'", "is not a whole number"),
        ("steps = 0", "must be from 1"),
        ("steps = true", "is not a whole number"),
        ("flips = 1", "is not true or false"),
        ("window = [1, 2, 3]", "is not a list of 2 whole numbers"),
        ("schedule = 'cosin'", "did you mean 'cosine'"),
        ("window = [900, 500]", "rising"),
        ("mem = '8 apples'", "not a size"),
        ("learning_rate = nan", "must be from"),
        ("steps = [", "not TOML"),
        ("steps = " + "[" * 5000, "nested too deeply"),
        ("steps = " + "[" * 101 + "]" * 101, "nested too deeply"),
        ("task = 'classfy'", "did you mean 'classify'"),
    ],
)
def test_bad_recipes_are_refused_in_one_sentence(tmp_path, text, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_recipe(tmp_path / "r.toml")
    assert "\n" not in str(caught.value).removesuffix(".")


def test_all_faults_of_a_file_are_said_at_once():
    with pytest.raises(InputError) as caught:
        recipe_of({"stepz": 3, "seed": -1, "lean": "yes", "data": "x"}, "r.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("r.toml: ") for line in lines)


def test_a_missing_recipe_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")


def test_every_recipe_value_can_reach_the_journal():
    assert as_mapping(Recipe())["steps"] is None
    assert set(as_mapping(Recipe())) == {*Recipe.declared(), "options"}


@pytest.mark.parametrize(
    ("task", "key", "value", "advice"),
    [
        ("classify", "photos", "folder", "only by personalize; name data"),
        (
            "personalize",
            "data",
            "folder",
            "only by classify, images, language-model, network, points, retrieve, surface; "
            "name photos",
        ),
        ("classify", "window", (1, 2), "only by personalize; leave it out"),
    ],
)
def test_a_key_of_another_task_is_refused_by_name(task, key, value, advice):
    with pytest.raises(InputError, match=f"{key} is not read by task '{task}', {advice}"):
        recipe_of({"task": task, key: value}, "recipe")


@pytest.mark.parametrize(
    ("task", "keys", "sentence"),
    [
        ("classify", {"method": "adamw", "rank": 4}, "rank is not read by method 'adamw', only by"),
        ("classify", {"method": "apollo", "basis": "dct"}, "only by galore, q-galore"),
        ("personalize", {"method": "backprop", "queries": 4}, "only by zo"),
        ("network", {"method": "dfa", "mode": "sequential"}, "mode is not read by method 'dfa'"),
        ("network", {"method": "lora"}, "method 'lora' is not for task 'network', only"),
        ("personalize", {"method": "galor"}, "did you mean 'galore'"),
        ("personalize", {"method": "galore"}, "method 'galore' is not for task 'personalize'"),
        (
            "classify",
            {"quant": "int4"},
            "quant 'int4' is not for task 'classify' on runtime 'torch'",
        ),
        ("classify", {"method": "zo", "preset": "zoodip"}, "preset 'zoodip' is not for task"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(task, keys, sentence):
    with pytest.raises(InputError, match=sentence):
        resolved(task, **keys)


def test_auto_is_the_exact_gradient_where_the_engine_has_one():
    assert resolved(engine="torch").method == "backprop"
    assert resolved(engine="onnx").method == "zo"
    # keys that only a forward-only method reads ask for it
    assert resolved(engine="torch", preset="zoodip").method == "zo"
    assert resolved(engine="torch", queries=2).method == "zo"


def test_every_task_has_a_method_of_its_own():
    found = resolved("classify")
    assert (found.method, found.learning_rate, found.weight_decay) == ("backprop", 5e-5, 0.01)
    assert resolved("network").method == "tpsgd"


def test_a_relative_rate_that_is_named_beats_an_absolute_default():
    found = resolved("classify", relative_rate=0.1)
    assert (found.learning_rate, found.relative_rate) == (None, 0.1)


def test_paths_of_a_recipe_work_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    found = with_absolute_paths(recipe_for(photos="pictures", model="model"))
    assert (found.photos, found.model) == (str(tmp_path / "pictures"), str(tmp_path / "model"))
    assert with_absolute_paths(recipe_for(model="owner/name")).model == "owner/name"


@pytest.mark.parametrize(
    "text",
    [
        "steps = 1" + "0" * 5000,
        "steps = 0x" + "f" * 5000,
        "learning_rate = 1" + "0" * 400,
        "learning_rate = 0x" + "f" * 5000,
        "cap_bytes = 0x" + "f" * 5000,
        "cap_bytes = 1" + "0" * 400,
        "cap_bytes = true",
        "a = " + "[" * 5000 + "]" * 5000,
        'out = ""',
        'photos = "a\\u0000b"',
    ],
)
def test_hostile_values_are_one_short_sentence(text, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(tmp_path / "r.toml")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_recipe_that_an_editor_saved_with_a_mark_is_read(tmp_path):
    text = to_toml(recipe_for("network", data="folder\x7fname/x.csv", steps=3))
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_recipe(tmp_path / "r.toml")
    assert (found.steps, found.data) == (3, str(tmp_path / "folder\x7fname/x.csv"))
