"""Every task, its engines, methods, defaults and savings fit together; asked of the registries."""

import pytest
from recipes import recipe_for, resolved

from edge_train.errors import InputError
from edge_train.methods import methods
from edge_train.quant import quants
from edge_train.registry import load
from edge_train.runtimes.engine import engines
from edge_train.tasks import tasks
from edge_train.tasks.task import COSTS

TASKS = tasks.names()
WAYS = [
    (name, engine, method.name)
    for name, task in tasks.all().items()
    for engine, use in task.all_uses().items()
    for method in methods.all().values()
    if method.needs <= use.offers
]


@pytest.mark.parametrize(("name", "engine", "method"), WAYS)
def test_every_able_method_resolves_with_all_that_it_reads(name, engine, method):
    adapters = {"trainable": "lora", "rank": 4, "scale": 1.0} if method == "lora" else {}
    found = resolved(name, engine=engine, method=method, **adapters)
    assert (found.method, found.runtime) == (method, engine)
    assert found.steps and found.samples and found.evaluate_every
    rated = found.learning_rate is not None or found.relative_rate is not None
    # the model's answers say how far, or the size of the start word does
    assert rated != (name == "personalize" and method in ("backprop", "zo"))
    record = methods.get(method)
    for key in record.reads:
        if key in found.declared() and key not in ("micro_batch", "epsilon", "basis"):
            no_size = key == "projection_scale"  # the method knows it from the network
            # directions: the file beside the model says which are the default
            may_be_off = key in ("weight_decay", "clip", "class_weights", "directions")
            assert no_size or may_be_off or getattr(found, key) is not None, key
    counted = record.passes(found)
    assert counted.forwards > 0
    assert counted.backwards >= 0


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_it_is_and_its_parts_exist(name):
    task = tasks.get(name)
    assert task.name == name == task.recipe.task
    assert task.says
    assert task.data in task.recipe.declared()
    for where in filter(None, (task.job, task.sections, task.accepts)):
        module, _, attribute = where.partition(":")
        assert module.startswith(f"edge_train.tasks.{name.replace('-', '_')}")
        assert attribute
    for engine, use in task.all_uses().items():
        assert engines.get(engine)
        assert use.offers
        assert use.libraries_bytes > 0
        for quant in use.quants:
            assert quants.get(quant)


@pytest.mark.parametrize("name", TASKS)
def test_every_default_is_a_declared_key_in_its_range(name):
    task = tasks.get(name)
    keys = task.recipe.declared()
    for (method, preset), values in task.defaults.items():
        assert method == "*" or preset == "default" or preset in methods.get(method).presets
        for key, value in values.items():
            assert keys[key].checked(value, "") == value


@pytest.mark.parametrize("name", TASKS)
def test_savings_are_listed_cheapest_first_and_say_what_they_mean(name):
    task = tasks.get(name)
    costs = [COSTS.index(saving.costs) for saving in task.savings]
    assert costs == sorted(costs)
    for saving in task.savings:
        assert saving.key in task.recipe.declared()
        values = [value for value, _ in saving.values]
        assert len(set(values)) == len(values) > 1
        for value, said in saving.values:
            if said and saving.only_auto:
                assert saving.reasons[value], (saving.key, value)
        assert saving.values[0][1] == ""  # nothing is given up yet


@pytest.mark.parametrize("name", TASKS)
def test_measured_qualities_are_of_ways_that_exist(name):
    task = tasks.get(name)
    kinds = task.recipe.declared()["trainable"].choices if "lora" in task.learned else ()
    for engine, way, quant in task.quality:
        use = task.use(engine)
        assert quant in use.quants
        assert way in kinds or methods.get(way).needs <= use.offers
    assert bool(task.quality) == bool(task.measured_on)


@pytest.mark.parametrize("name", TASKS)
def test_an_unknown_engine_method_or_quantisation_is_refused_with_the_nearest(name):
    for key, wrong, near in (("method", "backprob", "backprop"), ("quant", "non", "none")):
        with pytest.raises(InputError, match=near):
            resolved(name, **{key: wrong})
    with pytest.raises(InputError, match="torch"):
        tasks.get(name).use("toch")


def test_an_unknown_task_is_refused_with_the_nearest_and_the_list():
    with pytest.raises(InputError, match="did you mean 'classify'") as caught:
        tasks.get("classfy")
    for name in TASKS:
        assert name in str(caught.value)


@pytest.mark.parametrize("name", [name for name in TASKS if tasks.get(name).accepts])
def test_what_a_task_accepts_is_asked_without_an_engine(name, tmp_path):
    accepts = load(tasks.get(name).accepts)
    assert accepts(tmp_path / "nothing") is None
    (tmp_path / "file.xyz").write_bytes(b"\x00\xff")
    assert accepts(tmp_path / "file.xyz") is None


def test_recipes_of_two_tasks_are_never_equal():
    assert len({recipe_for(name).task for name in TASKS}) == len(TASKS)
