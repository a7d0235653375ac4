"""What a run is said to reach: as measured only where that is what was measured."""

import pytest

pytest.importorskip("torch")

from recipes import recipe_for
from tiny_models import make_tiny_model

from edge_train.run.planning import expectation
from edge_train.tasks.personalize import parts


def said(**keys):
    return expectation(parts.check(recipe_for(threads=1, **keys)).recipe, "3 s")


def test_the_default_of_the_embedded_model_is_what_was_measured():
    line = "; expect at most 1,200 forward and 1,200 backward passes, 3 s, and quality as measured"
    assert said().startswith(f"{line}: bag ")
    assert "1,250 forward passes, 3 s, and quality as measured: bag " in said(method="zo")
    assert said(trainable="lora").endswith("quality as measured: bag 95 %")


@pytest.mark.parametrize(
    "keys",
    [
        {"cap_bytes": 2_000_000_000},
        {"seed": 7},
        {"token": "<it>"},
        {"previews": False},
        {"prompts": ("a photo of {}",)},
        {"batch_limit": 2},
        {"lean": True},
    ],
)
def test_what_changes_nothing_that_is_learned_keeps_the_promise(keys):
    assert "and quality as measured: bag " in said(**keys)


def test_pictures_of_the_class_are_counted_as_passes():
    line = said(method="backprop", steps=2, samples=4, class_count=4)
    assert line.startswith("; expect 16 forward and 16 backward passes")
    line = said(method="zo", steps=2, samples=1, queries=3, class_count=4)
    assert line.startswith("; expect 16 forward passes")


@pytest.mark.parametrize(
    "keys",
    [
        {"steps": 2},
        {"vectors": 3},
        {"photos": "mine"},
        {"relative_rate": 0.2},
        {"method": "zo", "directions": "prior"},
        {"method": "zo", "queries": 1},
        {"method": "zo", "epsilon": 100.0},
        {"samples": 1},
        {"snr_gamma": 5.0},
        {"clip": 1e-6},
        {"time_seconds": 25.0},
        {"class_word": "boot"},
        {"class_count": 4},
        {"learn": "style"},
        {"flips": False},
        {"window": (0, 100)},
        {"schedule": "constant"},
        {"resolution": 16},
        {"until_noise": False},
        {"trainable": "lora", "rank": 2},
    ],
)
def test_what_is_not_the_default_was_not_measured(keys):
    assert "what quality this gives here was not measured (of this way: bag " in said(**keys)


def test_of_a_users_model_passes_and_time_are_said_and_no_quality_is_promised(tmp_path):
    model = str(make_tiny_model(tmp_path / "sd1"))
    line = said(model=model, class_word="dog")
    assert line.startswith("; expect at most 1,200 forward and 1,200 backward passes, 3 s; what ")
    assert "as measured" not in line
    lora = said(model=model, class_word="dog", trainable="lora")
    assert lora == (
        "; expect 1,600 forward and 1,600 backward passes, 3 s; what quality this gives here was "
        "not measured (of this way: bag 95 %)"
    )


def test_settings_of_a_paper_have_not_the_quality_of_the_default():
    assert said(method="zo", preset="zoodip").endswith("what quality this gives was not measured")
