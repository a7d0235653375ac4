"""The ladder gives up one thing at a time, each once, and has an end."""

from dataclasses import replace

from edge_train.ladder import RUNGS, next_smaller, words
from edge_train.recipe import Recipe


def down(recipe):
    taken = []
    while changes := next_smaller(recipe):
        taken.append(changes)
        recipe = replace(recipe, **changes)
        assert len(taken) <= len(RUNGS)
    return taken


def test_every_rung_is_taken_once_and_then_there_is_none():
    assert down(Recipe(runtime="onnx")) == [dict(changes) for _, changes in RUNGS]


def test_only_artifacts_can_leave_their_weights_in_the_file():
    assert {"lean": True} not in down(Recipe(runtime="torch"))


def test_what_is_small_already_is_not_made_smaller_again():
    assert down(Recipe(runtime="onnx", batch_limit=4, lean=True, previews=False)) == [
        {"batch_limit": 1}
    ]


def test_no_rung_touches_what_is_computed():
    changed = {name for _, changes in RUNGS for name in changes}
    assert changed == {"batch_limit", "lean", "previews"}


def test_changes_have_words():
    assert words({"batch_limit": 1}) == "one sample in each call of the model"
