"""Every method that trains block by block: leaves parameters alone, learns, holds one tape."""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from small_problem import CLASSES, NETWORKS, problem

from edge_train.arrays.parameters import Int8Parameters, Parameters
from edge_train.errors import NonFinite
from edge_train.estimators.backprop import Backprop
from edge_train.estimators.layerwise.local_losses import LOCAL_LOSSES
from edge_train.estimators.layerwise.relatives import DirectFeedback, Drtp, LocalClassifier
from edge_train.estimators.layerwise.targets import Projections
from edge_train.estimators.layerwise.tpsgd import LayerByLayer, LocalRule, TargetProjection
from edge_train.rng import Key

PROJECTIONS = Projections("rademacher", 0.5, seed=3)
UNIT = Projections("rademacher", 1.0, seed=3)
LOCAL = {
    **{f"tpsgd {loss}": TargetProjection(loss, PROJECTIONS, CLASSES) for loss in LOCAL_LOSSES},
    "tpsgd softmax": TargetProjection("softmax", UNIT, CLASSES),
    "drtp": Drtp(PROJECTIONS, CLASSES),
    "local": LocalClassifier(),
}
ESTIMATORS = {
    **{name: LayerByLayer(LocalRule(signal, "auto")) for name, signal in LOCAL.items()},
    "tpsgd in parts": LayerByLayer(LocalRule(LOCAL["tpsgd softmax"], "auto", "rows", 7)),
    "local in parts": LayerByLayer(LocalRule(LOCAL["local"], "auto", "row", 7)),
    "dfa": DirectFeedback(PROJECTIONS, "auto"),
    "backprop": Backprop(),
}


@pytest.fixture(params=ESTIMATORS.values(), ids=ESTIMATORS.keys())
def estimator(request):
    return request.param


def estimate(estimator, case, apply=lambda name, gradient: None, step=0):
    return estimator.estimate(case.runtime, None, case.batch, Key(7, step), apply)


def emitted(estimator, case):
    found = {}
    estimate(estimator, case, lambda name, gradient: found.__setitem__(name, gradient.copy()))
    return found


@pytest.mark.parametrize("kind", [Parameters, Int8Parameters])
@pytest.mark.parametrize("name", NETWORKS)
def test_without_apply_every_parameter_bit_stays(estimator, name, kind):
    case = problem(name, kind=kind)
    before = case.runtime.parameters.copy()
    inputs = case.batch["inputs"].copy()
    estimate(estimator, case)
    for block, value in before.items():
        np.testing.assert_array_equal(case.runtime.parameters.copy()[block], value)
    np.testing.assert_array_equal(case.batch["inputs"], inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_block_gets_a_gradient_of_its_shape(estimator, name):
    case = problem(name)
    found = emitted(estimator, case)
    local = isinstance(estimator, LayerByLayer) and isinstance(
        estimator.rule.signal, LocalClassifier
    )
    for block, value in case.runtime.parameters.items():
        if block.endswith(".local") and not local:
            assert block not in found
        else:
            assert found[block].shape == value.shape


# Every estimator on one network, every network with one estimator, and INT8 weights once.
LEARNING = [
    *((name, "dense", Parameters) for name in ESTIMATORS),
    *(("tpsgd softmax", network, Parameters) for network in NETWORKS if network != "dense"),
    ("tpsgd softmax", "dense", Int8Parameters),
]


@pytest.mark.parametrize(("estimator_name", "network", "kind"), LEARNING)
def test_with_a_plain_rate_it_learns(estimator_name, network, kind):
    case = problem(network, kind=kind)
    parameters = case.runtime.parameters

    def loss():
        return case.runtime.forward(case.batch, [parameters])[0].mean()

    first = loss()
    for step in range(60):
        key = Key(7, step)

        def apply(block, gradient, key=key):
            parameters.subtract(block, np.float32(0.2) * gradient, key)

        estimate(ESTIMATORS[estimator_name], case, apply, step)
    assert loss() < 0.7 * first


def test_the_same_step_gives_the_same_bits(estimator):
    one, other = emitted(estimator, problem("gru")), emitted(estimator, problem("gru"))
    assert list(one) == list(other)
    for name, gradient in one.items():
        np.testing.assert_array_equal(gradient, other[name])


@pytest.mark.parametrize("name", ["dense", "relu", "gru"])
def test_a_batch_twice_gives_the_gradient_of_a_batch_once(estimator, name):
    """Gradients are means, so that a rate carries over between batch sizes."""
    once, twice = problem(name), problem(name)
    twice.batch = {key: np.concatenate([v, v]) for key, v in twice.batch.items()}
    first, second = emitted(estimator, once), emitted(estimator, twice)
    for block, gradient in first.items():
        np.testing.assert_allclose(second[block], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("signal", LOCAL.values(), ids=LOCAL.keys())
def test_parts_of_a_batch_add_up_to_its_gradient(signal, name):
    whole = emitted(LayerByLayer(LocalRule(signal, "auto")), problem(name))
    parts = emitted(LayerByLayer(LocalRule(signal, "auto", micro_batch=7)), problem(name))
    for block, gradient in whole.items():
        np.testing.assert_allclose(parts[block], gradient, rtol=2e-3, atol=2e-6)


def test_the_last_block_has_the_exact_gradient_of_the_loss(estimator):
    case = problem("dense")
    exact, found = emitted(Backprop(), case), emitted(estimator, case)
    for name in ("2.weight", "2.bias"):
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-5, atol=1e-7)


def test_only_backprop_holds_more_than_one_tape(estimator):
    case = problem("dense")
    tapes, most = [], 0
    run = case.runtime.run

    class Tape:  # plain tuples and slots cannot be watched
        def __init__(self, tape):
            self.saved = tape.saved

    def watched(index, inputs):
        nonlocal most
        outputs, tape = run(index, inputs)
        tape = Tape(tape)
        tapes.append(weakref.ref(tape))
        most = max(most, sum(ref() is not None for ref in tapes))
        return outputs, tape

    case.runtime.run = watched
    estimate(estimator, case)
    assert most == (3 if isinstance(estimator, Backprop) else 1)


def test_passes_are_counted_in_samples(estimator):
    found = estimate(estimator, problem("dense"))
    passes = {Backprop: (60, 60), DirectFeedback: (120, 0), LayerByLayer: (60, 0)}
    assert (found.forwards, found.backwards) == passes[type(estimator)]


def test_an_input_that_is_not_finite_is_reported_before_anything_is_applied(estimator):
    case = problem("dense")
    case.batch["inputs"][3, 2] = np.nan
    applied = []
    with pytest.raises(NonFinite):
        estimate(estimator, case, lambda name, gradient: applied.append(name))
    assert applied == []


def test_local_losses_are_reported_block_by_block(estimator):
    found = estimate(estimator, problem("dense"))
    if isinstance(estimator, LayerByLayer):
        assert len(found.block_losses) == 3
        assert found.loss == found.block_losses[-1]
    else:
        assert found.block_losses == ()


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, np.inf), (-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("loss", LOCAL_LOSSES)
def test_two_labels_give_two_errors_whatever_the_range_of_a_block(loss, bounds):
    """Hinge and logistic errors of a sigmoid were the same for every label.

    Both signs are asked for in every row: a block that is told to rise everywhere learns nothing.
    """
    low, high = (np.clip(end, -1, 1) for end in bounds)
    row = np.random.default_rng(0).uniform(low, high, (1, 64)).astype(np.float32)
    signal = TargetProjection(loss, Projections("rademacher", 0.9, seed=3), CLASSES)
    block = SimpleNamespace(name="0", bounds=bounds)
    rows = np.repeat(row, 2, axis=0)
    _, error = signal.error(block, rows, np.array([0, 1]), {}, lambda *_: None)
    assert not np.array_equal(error[0], error[1])
    asked = signal.projections.matrix("0", CLASSES, 64)[:2]
    at_middle = np.full_like(rows, {-np.inf: 0, 0: 0.5, -1: 0}[bounds[0]])
    _, error = signal.error(block, at_middle, np.array([0, 1]), {}, lambda *_: None)
    if loss != "cosine":  # which turns a row, and need not move every number of it
        np.testing.assert_array_equal(np.sign(error), -np.sign(asked))
