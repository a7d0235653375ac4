"""Adam, norm correction and rates equal their definitions."""

import numpy as np
import pytest
import reference

from edge_train.arrays.parameters import Parameters
from edge_train.optim.transforms import (
    Adam,
    Chain,
    LearningRate,
    NormCorrection,
    WeightDecay,
    root_mean_square,
)
from edge_train.rng import Key


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_adam_equals_the_reference(scale):
    random = np.random.default_rng(0)
    gradients = [scale * random.standard_normal(7) for _ in range(30)]
    transform, param = Adam(0.9, 0.999, 1e-8), np.zeros(7, np.float32)
    state = transform.init(param)
    for count in range(1, 31):
        update = transform.update(gradients[count - 1].astype(np.float32), state, param)
        expected = reference.adam(gradients[:count], 0.9, 0.999, 1e-8)
        np.testing.assert_allclose(update, expected, rtol=2e-3, atol=1e-5)


def test_tiny_gradients_do_not_underflow_the_second_moment():
    transform, param = Adam(), np.zeros(3, np.float32)
    state = transform.init(param)
    update = transform.update(np.full(3, 1e-5, np.float32), state, param)
    assert (state["second"] > 0).all()  # half precision would hold 0 here
    np.testing.assert_allclose(update, 1.0, rtol=1e-2)


def test_norm_correction_gives_an_estimate_the_length_of_the_gradient():
    random = np.random.default_rng(0)
    queries, size = 3, 200
    gradient = random.standard_normal(size)
    lengths = []
    for _ in range(300):
        directions = random.standard_normal((queries, size))
        estimate = (directions @ gradient) @ directions / queries
        corrected = NormCorrection(queries).update(estimate.astype(np.float32), {}, estimate)
        lengths.append(np.square(corrected).sum())
    ratio = np.mean(lengths) / np.square(gradient).sum()
    assert 0.8 < ratio < 1.25  # 300 draws of a chi-square-like length, 5 standard errors


def test_rate_decays_along_a_half_cosine_to_its_final_share():
    rate = LearningRate(2.0, 10, final=0.1)
    state = rate.init(np.ones(1, np.float32))
    values = [float(rate.update(np.ones(1, np.float32), state, state)[0]) for _ in range(13)]
    assert values[0] == pytest.approx(2.0)
    assert values[5] == pytest.approx(1.1)
    assert values[10:] == pytest.approx([0.2] * 3)
    assert values == sorted(values, reverse=True)


def test_a_relative_rate_follows_the_scale_of_the_block():
    block = np.array([3.0, -4.0], np.float32)
    rate = LearningRate(0.1, 10, relative=True)
    update = rate.update(np.ones(2, np.float32), rate.init(block), block)
    np.testing.assert_allclose(update, 0.1 * root_mean_square(block), rtol=1e-5)


def test_adam_with_weight_decay_is_the_adamw_of_torch():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    start = random.standard_normal((3, 4)).astype(np.float32)
    ours = Parameters({"w": start})
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    chain = Chain((Adam(), WeightDecay(0.1), LearningRate(0.01, 20, final=1.0)))
    state = chain.init(start)
    for step in range(20):
        gradient = random.standard_normal((3, 4)).astype(np.float32)
        theirs.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        ours.subtract("w", chain.update(gradient, state, ours["w"]), Key(0, step))
    np.testing.assert_allclose(ours["w"], theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_vectors_do_not_decay():
    update = np.ones(3, np.float32)
    np.testing.assert_array_equal(WeightDecay(0.5).update(update, {}, update), update)
