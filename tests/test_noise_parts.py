"""The parts of a gradient's noise are those that the draws have."""

import numpy as np
import pytest

from edge_train.bench.noise_parts import (
    alone,
    antithetic,
    best_timesteps,
    estimated,
    rho,
    squared_mean,
    together,
    variance,
)

COUNT, WIDTH = 40_000, 8
G = np.linspace(1, 2, WIDTH)


def draws(seed):
    """Two factors, each (draws, width): of variance 4 and 1 a number."""
    generator = np.random.default_rng(seed)
    return 2 * generator.standard_normal((COUNT, WIDTH)), generator.standard_normal((COUNT, WIDTH))


def gradients(first, second):
    """The mean, the two factors, and what they do together: variance 4 of it."""
    return G + first + second + first * second


# standard errors at 40,000 draws of 8 numbers are about 1 % of the variance: 5 of them
CLOSE = 0.05


def test_signal_and_noise_are_told_apart():
    found = gradients(*draws(0))
    assert squared_mean(found) == pytest.approx(G @ G, rel=CLOSE)
    assert variance(found) == pytest.approx(9 * WIDTH, rel=CLOSE)
    assert rho(found) == pytest.approx(np.sqrt(9 * WIDTH / (G @ G)), rel=CLOSE)


def test_no_signal_is_said_and_is_no_number():
    noise = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert rho(noise) == np.inf
    assert str(estimated(lambda g: rho(g["a"]), {"a": np.tile(noise, (20, 1))})) == "no mean seen"


def test_parts_alone_and_together_are_those_of_the_draws():
    (first, second), (other_first, other_second) = draws(0), draws(1)
    base = gradients(first, second)
    assert alone(base, gradients(first, other_second)) == pytest.approx(4 / 9, abs=CLOSE)
    assert alone(base, gradients(other_first, second)) == pytest.approx(1 / 9, abs=CLOSE)
    assert together(base, gradients(other_first, second)) == pytest.approx(8 / 9, abs=CLOSE)
    assert together(base, gradients(first, other_second)) == pytest.approx(5 / 9, abs=CLOSE)


@pytest.mark.parametrize(("even", "wanted"), [(0.0, -1.0), (1.0, 0.0), (1e3, 1.0)])
def test_a_negative_noise_helps_where_gradients_are_odd_in_it(even, wanted):
    first, noise = draws(2)
    other = draws(3)[1]

    def of(n):
        return G + first + n + even * (n**2 - 1) / np.sqrt(2)

    found = antithetic(of(noise), of(-noise), of(other))
    assert found == pytest.approx(wanted, abs=CLOSE)


def test_one_draw_has_no_spread():
    with pytest.raises(ValueError, match="two are needed"):
        squared_mean(np.ones((1, 3)))


def test_errors_cover_the_truth():
    found = {"base": gradients(*draws(4))[:400]}
    value = estimated(lambda g: variance(g["base"]), found)
    assert abs(value.value - 9 * WIDTH) < 5 * value.error
    assert value.error < 0.3 * value.value


def test_draws_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"draws \[20, 21\]"):
        estimated(lambda g: 0.0, {"a": np.ones((20, 2)), "b": np.ones((21, 2))})
    with pytest.raises(ValueError, match="at least 20"):
        estimated(lambda g: 0.0, {"a": np.ones((19, 2))})


def test_timesteps_of_long_gradients_are_drawn_more_often():
    often, left = best_timesteps(np.array([4.0, 4.0]))
    assert (often.tolist(), left) == ([0.5, 0.5], 1)
    often, left = best_timesteps(np.array([0.01, 1.0, 16.0]))
    assert np.all(np.diff(often) > 0) and left < 0.6


@pytest.mark.slow
def test_the_budget_of_the_embedded_model_is_the_same_again(tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    from edge_train.bench import noise_budget

    monkeypatch.setattr(noise_budget, "_POINTS", (0,))
    table = noise_budget.main(tmp_path, 1, samples=20)
    assert "| rho: noise over mean, one sample |" in table
    assert noise_budget.main(tmp_path / "other", 1, samples=20) == table
    monkeypatch.setattr(noise_budget, "measure", None)
    assert noise_budget.main(tmp_path, 1, samples=20) == table
