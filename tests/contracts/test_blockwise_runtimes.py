"""Every runtime of blocks: a chain of its blocks is its forward pass, and points leave it alone."""

import numpy as np
import pytest
from small_problem import NETWORKS, problem

from edge_train.arrays.parameters import Int4Parameters, Int8Parameters, Parameters
from edge_train.losses import cross_entropy


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture(params=[Parameters, Int8Parameters, Int4Parameters])
def case(request, name):
    return problem(name, kind=request.param)


def test_losses_are_those_of_the_chain_of_blocks(case):
    values = case.batch["inputs"]
    for index in range(len(case.runtime.blocks)):
        values, _ = case.runtime.run(index, values)
        assert values.shape[1:] == case.runtime.blocks[index].output_shape
    exact, _ = cross_entropy(values, case.batch["labels"])
    losses = case.runtime.forward(case.batch, [case.runtime.parameters])
    assert (losses.shape, losses.dtype) == ((1, 60), np.float32)
    np.testing.assert_allclose(losses[0], exact, rtol=1e-3, atol=1e-5)


def test_a_loss_depends_on_its_own_sample_only(case):
    together = case.runtime.forward(case.batch, [case.runtime.parameters])[0]
    for sample in (0, 41):
        alone = {key: value[sample : sample + 1] for key, value in case.batch.items()}
        found = case.runtime.forward(alone, [case.runtime.parameters])[0, 0]
        assert found == pytest.approx(together[sample], rel=1e-3, abs=1e-5)


def test_a_smaller_batch_limit_changes_no_loss(case):
    whole = case.runtime.forward(case.batch, [case.runtime.parameters])
    case.runtime.batch_limit = 7
    parts = case.runtime.forward(case.batch, [case.runtime.parameters])
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)


def test_a_point_replaces_the_parameters_and_does_not_change_them(case):
    before = case.runtime.parameters.copy()
    zero = {name: np.zeros_like(block) for name, block in case.runtime.parameters.items()}
    losses = case.runtime.forward(case.batch, [zero, case.runtime.parameters])
    np.testing.assert_allclose(losses[0], np.log(3), rtol=1e-5)
    assert not np.allclose(losses[0], losses[1])
    for name, block in case.runtime.parameters.copy().items():
        np.testing.assert_array_equal(block, before[name])


def test_a_block_leaves_its_inputs_alone_and_its_tape_serves_twice(case):
    inputs = case.batch["inputs"].copy()
    outputs, tape = case.runtime.run(0, inputs)
    found = []
    for _ in range(2):
        gradients = {}
        case.runtime.backward_stage(0, tape, np.ones_like(outputs), gradients.__setitem__, "rows")
        found.append(gradients)
    np.testing.assert_array_equal(inputs, case.batch["inputs"])
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(gradient, found[1][name])


def test_only_the_reach_to_the_inputs_gives_their_error(case):
    values, _ = case.runtime.run(0, case.batch["inputs"])
    outputs, tape = case.runtime.run(1, values)
    for through in ("row", "rows", "inputs"):
        passed = case.runtime.backward_stage(
            1, tape, np.ones_like(outputs), lambda *_: None, through
        )
        if through == "inputs":
            assert passed.shape == values.shape
        else:
            assert passed is None
