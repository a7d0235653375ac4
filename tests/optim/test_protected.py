"""Old tasks are left alone: nothing moves in their space, but where CUBER's regimes let it."""

import numpy as np
import pytest

from edge_train.optim.protected import (
    AGAINST,
    ALONG,
    APART,
    Protected,
    ProtectedMatrix,
    Space,
    first_regimes,
)
from edge_train.optim.transforms import Adam, Chain, LearningRate, Momentum

RULES = {
    "sgd": LearningRate(0.1, 100),
    "momentum": Chain((Momentum(0.9), LearningRate(0.1, 100))),
    "adam": Chain((Adam(), LearningRate(0.01, 100))),
}
OUTPUTS, INPUTS = 4, 12


def space_of(tasks, seed=0, width=3):
    """Return the space of tasks with directions of their own, and gradients that lie in them."""
    random = np.random.default_rng(seed)
    count = width * tasks
    directions, _ = np.linalg.qr(random.standard_normal((INPUTS, count)))
    owned = np.kron(np.eye(tasks), np.ones((1, width))).astype(bool)
    gradients = [random.standard_normal((OUTPUTS, count)) * own for own in owned]
    return Space(
        directions.astype(np.float32), owned, tuple(one.astype(np.float32) for one in gradients)
    )


def reference_regimes(gradient, space, moves=0.5, agrees=0.0):
    """Return CUBER's regimes, as the paper defines them, with whole (outputs, inputs) matrices."""
    shares, found = [], []
    for owned, old in zip(space.owned, space.gradients, strict=True):
        base = space.directions[:, owned].astype(np.float64)
        inside, whole = gradient @ base @ base.T, old @ space.directions.T
        shares.append(np.linalg.norm(inside) / np.linalg.norm(gradient))
        lengths = np.linalg.norm(whole) * np.linalg.norm(gradient)
        if shares[-1] <= moves:
            found.append(1)
        elif (whole * gradient).sum() <= agrees * lengths:
            found.append(2)
        else:
            found.append(3)
    most = sorted(range(len(found)), key=lambda task: -shares[task])[:2]
    return [regime if task in most else 1 for task, regime in enumerate(found)]


def test_the_regimes_of_random_gradients_are_those_of_the_definition():
    seen = set()
    for seed in range(60):
        random = np.random.default_rng(seed)
        space = space_of(3, seed)
        along = np.tensordot(random.normal(size=3), np.stack(space.gradients), 1)
        gradient = along @ space.directions.T + random.standard_normal((OUTPUTS, INPUTS))
        gradient = gradient.astype(np.float32)
        found = first_regimes(gradient, gradient @ space.directions, space)
        assert found == reference_regimes(gradient, space)
        seen |= set(found)
    assert seen == {APART, AGAINST, ALONG}


def test_no_more_than_two_old_tasks_are_related_to_a_layer():
    space = space_of(3, width=4)
    gradient = sum(space.gradients) @ space.directions.T
    space = Space(space.directions, np.ones_like(space.owned), space.gradients)
    found = first_regimes(gradient, gradient @ space.directions, space)
    assert found.count(APART) == 1


@pytest.mark.parametrize("regimes", [False, True], ids=["gpm", "cuber"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_what_old_inputs_gave_does_not_change_whatever_the_rule(rule, regimes):
    """Gradients are mostly outside of the old space, so all tasks stay in regime 1."""
    space = space_of(2)
    protected = ProtectedMatrix(rule, space, regimes)
    random = np.random.default_rng(0)
    weight = random.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
    old = (space.directions @ random.standard_normal((6, 50))).astype(np.float32)
    state, before = protected.init(weight), weight @ old
    first = weight.copy()
    outside = np.eye(INPUTS) - space.directions @ space.directions.T
    for _ in range(100):
        gradient = random.standard_normal((OUTPUTS, INPUTS))
        gradient = gradient @ outside + 0.3 * gradient
        weight = weight - protected.update(gradient.astype(np.float32), state, weight)
    assert np.abs(weight @ old - before).max() < 1e-5  # the promise; single precision
    assert np.abs(weight - first).max() > 0.1


def test_gpm_is_its_formula():
    space = space_of(2)
    gradient = np.random.default_rng(1).standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
    protected = ProtectedMatrix(LearningRate(1.0, 10), space, False)
    found = protected.update(gradient.copy(), protected.init(gradient), gradient)
    memory = space.directions
    np.testing.assert_allclose(found, gradient - (gradient @ memory) @ memory.T, atol=1e-6)


def test_a_step_that_helps_an_old_task_moves_in_its_space_until_the_mean_does_not():
    space = space_of(1)
    helps = space.gradients[0] @ space.directions.T
    protected = ProtectedMatrix(LearningRate(1.0, 10), space, True)
    state = protected.init(helps)
    np.testing.assert_allclose(protected.update(helps.copy(), state, helps), helps, atol=1e-5)
    assert state["regime"].tolist() == [ALONG]
    np.testing.assert_allclose(state["moved"], -space.gradients[0], atol=1e-5)
    protected.update(-helps, state, helps)
    assert state["regime"].tolist() == [ALONG]  # one against is noise
    for _ in range(40):  # the mean of the last fifty
        protected.update(-helps, state, helps)
    assert state["regime"].tolist() == [AGAINST]
    for _ in range(2):  # and it does not come back
        found = protected.update(helps.copy(), state, helps)
        assert state["regime"].tolist() == [AGAINST]
        np.testing.assert_allclose(found, 0, atol=1e-5)


def test_where_weights_may_move_they_are_held_near_the_old_ones():
    space = space_of(1)
    helps = space.gradients[0] @ space.directions.T
    protected = ProtectedMatrix(LearningRate(1.0, 10), space, True)
    state = protected.init(helps)
    protected.update(helps.copy(), state, helps)
    again = protected.update(helps.copy(), state, helps)
    assert np.linalg.norm(again) < np.linalg.norm(helps)  # the pull is against the first step


def test_a_direction_that_another_task_needs_stays():
    space = space_of(2)
    owned = space.owned.copy()
    owned[1, 0] = True  # the first direction of the first task is the second one's, too
    space = Space(space.directions, owned, space.gradients)
    helps = space.gradients[0] @ space.directions.T
    protected = ProtectedMatrix(LearningRate(1.0, 10), space, True)
    state = protected.init(helps)
    found = protected.update(helps.copy(), state, helps) @ space.directions
    assert state["regime"][0] == ALONG and state["regime"][1] != ALONG
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-5)
    assert np.abs(found[:, 1:3]).min() > 0


def test_biases_rest_and_what_nothing_protects_is_trained_as_ever():
    space = space_of(1)
    rule = Protected(LearningRate(1.0, 10), {"0.weight": space}, frozenset({"0.bias"}), True)
    bias, gradient = np.ones(4, np.float32), np.ones(4, np.float32)
    assert (rule.rule("0.bias").update(gradient, {}, bias) == 0).all()
    assert isinstance(rule.rule("0.weight"), ProtectedMatrix)
    assert rule.rule("1.bias") == LearningRate(1.0, 10)


def test_a_state_that_is_kept_goes_on_with_the_same_bits():
    space = space_of(2)
    protected = ProtectedMatrix(RULES["momentum"], space, True)
    random = np.random.default_rng(0)
    gradients = random.standard_normal((6, OUTPUTS, INPUTS)).astype(np.float32)
    gradients += space.gradients[0] @ space.directions.T
    state = protected.init(gradients[0])
    for one in gradients[:3]:
        protected.update(one.copy(), state, one)
    copy = {name: part.copy() for name, part in state.items()}
    for one in gradients[3:]:
        a = protected.update(one.copy(), state, one)
        b = protected.update(one.copy(), copy, one)
        assert (a == b).all()
    assert {n: p.shape for n, p in state.items()} == {
        n: p.shape for n, p in protected.init(gradients[0]).items()
    }
