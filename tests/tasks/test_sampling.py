"""Which token comes next: each setting does what people of llama.cpp know it to do."""

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.tasks.language_model.sampling import Sampling

EVERYTHING = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def drawn(count=4000, before=(), **settings):
    """Return how often each token came."""
    sampling = Sampling(**{"temperature": 1.0, **EVERYTHING, **settings})
    draw = np.random.default_rng(0)
    found = [sampling.choose(LOGITS, before, draw) for _ in range(count)]
    return np.bincount(found, minlength=4) / count


def test_at_temperature_one_tokens_come_as_often_as_they_are_likely():
    # five standard deviations of 4,000 draws are 0.04
    assert np.abs(drawn() - np.exp(LOGITS)).max() < 0.04


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-307])
def test_at_temperature_zero_or_next_to_it_the_best_always_comes(temperature):
    assert drawn(5, temperature=temperature)[1] == 1


def test_a_lower_temperature_makes_likely_tokens_likelier():
    wanted = np.exp(LOGITS / 0.5) / np.exp(LOGITS / 0.5).sum()
    assert np.abs(drawn(temperature=0.5) - wanted).max() < 0.04


@pytest.mark.parametrize(
    ("setting", "left"),
    [
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 1}, {1}),
        ({"top_p": 0.75}, {1, 3, 2}),
        ({"top_p": 0.65}, {1, 3}),
        ({"top_p": 0.0}, {1}),
        ({"min_p": 0.6}, {1, 3}),
        ({"min_p": 1.0}, {1}),
        ({"top_k": 3, "min_p": 0.3}, {1, 3, 2}),
    ],
)
def test_a_setting_leaves_the_most_likely_tokens(setting, left):
    assert set(np.flatnonzero(drawn(500, **setting))) == left


def test_a_penalty_makes_what_was_said_less_likely_of_the_last_64_tokens():
    best = {"temperature": 0.0, **EVERYTHING, "repeat_penalty": 2.0}
    draw = np.random.default_rng(0)
    assert Sampling(**best).choose(LOGITS, [1], draw) == 3  # log .4 * 2 is below log .3
    assert Sampling(**best).choose(-LOGITS, [0], draw) == 2  # of logits above 0, too
    assert Sampling(**best).choose(LOGITS, [1, *[0] * 64], draw) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("top_k", -1),
        ("repeat_penalty", 0.0),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_its_flag(name, value):
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is .*, must be from"):
        Sampling(**{"temperature": 1.0, **EVERYTHING, name: value})
