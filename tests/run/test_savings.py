"""A run gives up one thing at a time, the cheapest first, each once, and then nothing is left."""

from dataclasses import replace

import pytest
from recipes import recipe_for

from edge_train.run.savings import after_training, next_smaller, smallest, words
from edge_train.tasks import tasks
from edge_train.tasks.task import COSTS


def down(recipe, asked=None):
    taken = []
    while changes := next_smaller(recipe, asked):
        taken.append(changes)
        recipe = replace(recipe, **changes)
        assert len(taken) <= 20
    return taken


@pytest.mark.parametrize("name", tasks.names())
def test_savings_stand_in_the_order_of_what_they_cost(name):
    costs = [COSTS.index(saving.costs) for saving in tasks.get(name).savings]
    assert costs == sorted(costs)


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_every_saving_is_taken_once_and_then_there_is_none(runtime):
    recipe = recipe_for(runtime=runtime, method="zo")
    assert down(recipe) == [
        {"batch_limit": 8},
        {"batch_limit": 1},
        {"lean": True},
        {"previews": False},
    ]
    wanted = replace(recipe, batch_limit=1, lean=True, previews=False)
    assert smallest(recipe) == wanted


def test_a_language_model_gives_freed_memory_back_before_its_weights_become_int8():
    asked = recipe_for("language-model")
    recipe = replace(asked, runtime="torch", quant="none", method="backprop", batch_limit=1)
    assert next_smaller(recipe, asked) == {"lean": True}
    assert next_smaller(replace(recipe, lean=True), asked) == {"quant": "int8"}


def test_what_is_small_already_is_not_made_smaller_again():
    recipe = recipe_for(runtime="onnx", method="zo", batch_limit=4, lean=True, previews=False)
    assert down(recipe) == [{"batch_limit": 1}]


@pytest.mark.parametrize("name", tasks.names())
def test_once_training_began_nothing_that_is_computed_changes(name):
    changed = {saving.key for saving in tasks.get(name).savings if not saving.only_auto}
    assert changed <= {"batch_limit", "micro_batch", "lean", "previews"}


def test_only_pictures_of_a_task_that_draws_are_given_up():
    network = recipe_for("network", runtime="numpy", method="tpsgd", quant="none")
    assert {"previews": False} not in down(network)
    assert after_training(network) == {}
    assert after_training(recipe_for(runtime="onnx", method="zo")) == {"previews": False}
    text = recipe_for("classify", runtime="ort-training", method="backprop")
    assert {"lean": True} in down(text)
    assert {"lean": True} not in down(replace(text, runtime="torch"))


def test_a_network_may_get_int8_weights_and_a_classifier_small_moments_where_auto_was_asked():
    asked = recipe_for("network")
    network = replace(asked, runtime="numpy", method="tpsgd", quant="none", batch_limit=1)
    assert next_smaller(network, asked) == {"quant": "int8"}
    assert next_smaller(network, network) == {}
    asked = recipe_for("classify")
    text = replace(asked, runtime="torch", method="backprop", quant="none", batch_limit=1)
    assert next_smaller(text, asked) == {"method": "adamw8bit"}
    assert next_smaller(replace(text, method="adamw8bit"), asked) == {"method": "zo"}
    assert next_smaller(text, replace(text, method="adamw")) == {}


def test_int4_weights_are_the_last_thing_that_auto_gives_up():
    asked = recipe_for("language-model", runtime="torch", batch_limit=1, lean=True)
    recipe = replace(asked, method="backprop", quant="none")
    methods = [{"method": name} for name in ("adamw8bit", "racs", "scale-sgd")]
    assert down(recipe, asked) == [{"quant": "int8"}, *methods, {"quant": "int4"}]
    small = replace(recipe, method="scale-sgd", quant="int8")
    assert next_smaller(small, replace(asked, quant="int8")) == {}


def test_an_engine_that_reads_weights_from_their_file_is_not_asked_to_hold_them_in_few_bits():
    asked = recipe_for("language-model", runtime="numpy", trainable="lora")
    recipe = replace(asked, method="backprop", quant="none", samples=4, batch_limit=1)
    given_up = []
    while changes := next_smaller(recipe, asked):
        given_up += changes
        recipe = replace(recipe, **changes)
    assert given_up == ["lean", "micro_batch", "method", "method"]
    assert recipe.method == "zo"


def test_auto_does_not_become_a_method_that_refuses_a_key_of_the_user():
    """`zo` reads no clip: a run that fell to it would end in the sentence about that key."""
    asked = recipe_for("language-model", runtime="torch", trainable="lora", clip=1.0)
    recipe = replace(asked, method="adamw8bit", quant="none", lean=True, batch_limit=1)
    recipe = replace(recipe, micro_batch=1)
    assert next_smaller(recipe, asked) == {}
    assert next_smaller(recipe, replace(asked, clip=None)) == {"method": "zo"}


def test_a_language_model_is_differentiated_in_parts_where_their_sum_is_small():
    text = recipe_for("language-model", method="q-galore", batch_limit=1, samples=4, lean=True)
    assert next_smaller(text) == {"micro_batch": 1}
    assert next_smaller(replace(text, micro_batch=1)) == {}
    assert next_smaller(replace(text, samples=1)) == {}
    for method in ("backprop", "adamw8bit", "apollo", "zo"):
        assert "micro_batch" not in next_smaller(replace(text, method=method))


def test_words_that_two_savings_share_are_said_once():
    task = tasks.get("language-model")
    assert words(task, {"method": "adamw8bit"}) == "optimizer state in 8 bits"


def test_changes_have_the_words_of_their_task():
    task = tasks.get("personalize")
    assert words(task, {"batch_limit": 1}) == "one sample in each call of the model"
    both = words(task, {"lean": True, "previews": False})
    assert both == "weights in their file, freed memory given back, no pictures"
    said = words(tasks.get("language-model"), {"lean": True})
    assert said == "freed memory given back at once"
