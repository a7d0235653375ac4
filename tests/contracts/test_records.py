"""Methods, engines, quantisations and keys: what is true of every record."""

from importlib.util import find_spec

import pytest

from edge_train.methods import methods, rules
from edge_train.quant import quants
from edge_train.recipe import GROUPS, to_toml
from edge_train.registry import load
from edge_train.runtimes.engine import engines
from edge_train.tasks import read_recipe, tasks

NEEDS = {"forward", "gradient", "large", "matrices", "adapters", "blocks", "tokens"}
KEYS = {
    (task.name, key.name): key
    for task in tasks.all().values()
    for key in task.recipe.declared().values()
}


@pytest.mark.parametrize("name", methods.names())
def test_a_method_says_what_it_needs_and_reads_declared_keys(name):
    method = methods.get(name)
    assert method.says
    assert method.needs
    assert method.needs <= NEEDS
    declared = {key for _, key in KEYS}
    assert set(method.reads) <= declared
    assert method.builder("default") is method.build
    for preset in method.presets:
        assert any((name, preset) in task.defaults for task in tasks.all().values())
        assert method.builder(preset) is method.presets[preset]
    with pytest.raises(KeyError):
        method.builder("no such preset")


def test_every_rule_is_a_method_of_its_name():
    for name, rule in rules.all().items():
        assert methods.get(name).needs == rule.needs
        assert methods.get(name).projects == rule.projects


@pytest.mark.parametrize("name", engines.names())
def test_an_engine_names_its_packages_and_serves_a_task(name):
    engine = engines.get(name)
    assert engine.says
    assert engine.distributions
    assert any(name in task.all_uses() for task in tasks.all().values())
    if engine.doctor is not None:
        assert find_spec(engine.doctor.partition(":")[0])


@pytest.mark.parametrize("name", quants.names())
def test_a_quantisation_is_held_written_or_trained_by_what_it_names(name):
    quant = quants.get(name)
    assert quant.says
    assert 0 < quant.weight_bytes <= 4
    assert quant.writer or quant.trained or quant.torch_type
    if quant.trained is not None:
        kind = load(quant.trained)
        assert kind.block_bytes((64, 64)) <= 4.2 * 64 * 64
        assert kind.block_bytes((64,)) == 4 * 64
    if quant.calibrated:
        assert quant.writer


@pytest.mark.parametrize(("task", "name"), KEYS)
def test_a_key_has_a_flag_a_group_help_and_bounds(task, name):
    key = KEYS[task, name]
    assert key.group in GROUPS
    assert key.help
    assert not key.help.endswith(".")
    for flag in key.spellings:
        assert flag.startswith("--")
    assert "_" not in key.spellings[0]
    number = key.kind in (int, float) and not key.is_bytes
    assert not number or (key.low is not None and key.high is not None), "a range, please"


def test_a_flag_means_the_same_key_for_every_task():
    meaning = {}
    for (_, name), key in KEYS.items():
        for flag in key.spellings:
            spelled = flag.replace("_", "-")
            assert meaning.setdefault(spelled, name) == name, flag


def a_value(key):
    """Return a value that a key may have and that is not its default."""
    if key.choices:
        return next(word for word in key.choices if word != key.default)
    if key.kind is bool:
        return not key.default
    if key.kind in (int, float):
        if key.low is None:
            return 10**9  # bytes
        return key.kind(key.low if key.low != key.default else key.high)
    if key.kind is str:
        return {"method": "adamw", "preset": "default", "when": "night"}.get(key.name, "word")
    return (1, 2) if "int" in str(key.kind) else ("one", "two")


@pytest.mark.parametrize(("task", "name"), KEYS)
def test_a_key_survives_a_file(task, name, tmp_path):
    key = KEYS[task, name]
    recipe = tasks.get(task).recipe(**{name: a_value(key)})
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    found = read_recipe(tmp_path / "recipe.toml")
    if key.beside_recipe:
        assert getattr(found, name).endswith("word")
    else:
        assert found == recipe
