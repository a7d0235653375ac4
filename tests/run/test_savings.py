"""The ladder gives up one thing at a time, each once, and has an end."""

from dataclasses import replace

from edge_train.recipe import Recipe
from edge_train.run.savings import RUNGS, next_smaller, smallest, words


def down(recipe):
    taken = []
    while changes := next_smaller(recipe):
        taken.append(changes)
        recipe = replace(recipe, **changes)
        assert len(taken) <= len(RUNGS)
    return taken


def test_every_rung_is_taken_once_and_then_there_is_none():
    recipe = Recipe(runtime="onnx")
    kept = [dict(rung.changes) for rung in RUNGS if rung.helps(recipe) and not rung.choice]
    assert down(recipe) == kept
    assert smallest(Recipe(runtime="onnx")) == Recipe(
        runtime="onnx", batch_limit=1, lean=True, previews=False
    )


def test_only_artifacts_can_leave_their_weights_in_the_file():
    assert {"lean": True} not in down(Recipe(runtime="torch"))


def test_a_language_model_gives_freed_memory_back_before_its_weights_become_int8():
    recipe = Recipe(task="language-model", runtime="torch", quant="none", batch_limit=1)
    asked = Recipe(task="language-model")
    assert next_smaller(recipe, asked) == {"lean": True}
    assert next_smaller(replace(recipe, lean=True), asked) == {"quant": "int8"}


def test_what_is_small_already_is_not_made_smaller_again():
    assert down(Recipe(runtime="onnx", batch_limit=4, lean=True, previews=False)) == [
        {"batch_limit": 1}
    ]


def test_no_rung_touches_what_is_computed():
    changed = {name for rung in RUNGS if not rung.choice for name in rung.changes}
    assert changed == {"batch_limit", "micro_batch", "lean", "previews"}


def test_only_pictures_of_a_task_that_draws_are_given_up():
    assert {"previews": False} not in down(Recipe(task="network", runtime="numpy"))
    assert {"lean": True} in down(Recipe(task="classify", runtime="ort-training"))


def test_a_network_may_get_int8_weights_and_a_classifier_small_moments_where_auto_was_asked():
    network = Recipe(task="network", runtime="numpy", method="tpsgd", quant="none", batch_limit=1)
    assert next_smaller(network, Recipe(task="network")) == {"quant": "int8"}
    assert next_smaller(network, replace(network, quant="none")) == {}
    text = Recipe(task="classify", method="backprop", quant="none", batch_limit=1)
    assert next_smaller(text, Recipe(task="classify")) == {"method": "adamw8bit"}
    last = replace(text, method="adamw8bit")
    assert next_smaller(last, Recipe(task="classify")) == {"method": "zo"}
    assert next_smaller(text, replace(text, method="adamw")) == {}


def test_int4_weights_are_the_last_thing_that_auto_gives_up():
    asked = Recipe(task="language-model", runtime="torch", batch_limit=1, lean=True)
    recipe, taken = replace(asked, method="backprop", quant="none"), []
    while changes := next_smaller(recipe, asked):
        taken.append(changes)
        recipe = replace(recipe, **changes)
    assert taken == [{"quant": "int8"}, {"method": "adamw8bit"}, {"quant": "int4"}]
    assert next_smaller(recipe, replace(asked, quant="int8")) == {}


def test_a_language_model_is_differentiated_in_parts_where_their_sum_is_small():
    text = Recipe(task="language-model", method="q-galore", batch_limit=1, samples=4, lean=True)
    assert next_smaller(text) == {"micro_batch": 1}
    assert next_smaller(replace(text, micro_batch=1)) == {}
    assert next_smaller(replace(text, samples=1)) == {}
    for method in ("backprop", "adamw8bit", "apollo", "zo"):
        assert "micro_batch" not in next_smaller(replace(text, method=method))


def test_changes_have_words():
    assert words({"batch_limit": 1}) == "one sample in each call of the model"
