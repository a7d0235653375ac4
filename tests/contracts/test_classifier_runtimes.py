"""Runtimes of classifiers agree: same losses, same gradients, and gradients that are slopes."""

import numpy as np
import pytest

pytest.importorskip("torch")

from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.training_artifact import open_training_artifact
from edge_train.rng import Key
from edge_train.runtimes.onnx.classifier import OrtClassifier
from edge_train.runtimes.torch.classifier import TorchClassifier

ENGINES = ("torch", "torch-head", "ort-training", "ort-training-head")
SAME = 1e-5  # share of a loss, or of a gradient's length: two orders of summation in float32


def batch(count=6, length=9):
    draw = np.random.default_rng(5)
    counts = draw.integers(2, length + 1, count)
    mask = (np.arange(length) < counts[:, None]).astype(np.int64)
    ids = np.where(mask, draw.integers(5, 60, (count, length)), 0)
    return {"ids": ids, "mask": mask, "labels": draw.integers(0, 2, count)}


@pytest.fixture
def open_runtime(classifiers):
    opened = []

    def open_one(engine):
        name, _, head = engine.rpartition("-head")
        name = name or head
        if name == "torch":
            folder = open_classifier(classifiers.model)
            made = TorchClassifier.open(
                folder, trainable="all" if engine == name else "head", threads=1
            )
        else:
            folder = classifiers.artifact if engine == name else classifiers.head_artifact
            made = OrtClassifier(open_training_artifact(folder), threads=1)
        opened.append(made)
        return made

    yield open_one
    for made in opened:
        made.close()


@pytest.fixture(params=ENGINES)
def runtime(request, open_runtime):
    return open_runtime(request.param)


def gradients(runtime, given):
    found = {}
    losses = runtime.backward(given, lambda name, value: found.update({name: value.copy()}))
    return losses, found


def test_told_other_threads_it_computes_the_same_but_for_rounding(runtime):
    losses, found = gradients(runtime, batch())
    runtime.use_threads(2)
    others, _ = gradients(runtime, batch())
    np.testing.assert_allclose(others, losses, rtol=SAME)
    runtime.use_threads(1)
    again, same = gradients(runtime, batch())
    np.testing.assert_array_equal(again, losses)
    for name, value in found.items():
        np.testing.assert_array_equal(same[name], value)


def test_start_values_are_those_of_the_folder(open_runtime):
    blocks = [dict(open_runtime(engine).parameters) for engine in ("torch", "ort-training")]
    assert set(blocks[1]) <= set(blocks[0])
    for name, value in blocks[1].items():
        np.testing.assert_array_equal(value, blocks[0][name])


@pytest.mark.parametrize("suffix", ["", "-head"])
def test_losses_and_gradients_agree_with_torch(open_runtime, suffix):
    exact, expected = gradients(open_runtime(f"torch{suffix}"), batch())
    losses, found = gradients(open_runtime(f"ort-training{suffix}"), batch())
    np.testing.assert_allclose(losses, exact, rtol=SAME)
    assert found.keys() == expected.keys()
    longest = max(np.linalg.norm(value) for value in expected.values())
    for name, value in expected.items():
        # the bias of keys has gradient 0 but for rounding: compared with the longest block
        apart = np.linalg.norm(found[name] - value)
        assert apart <= SAME * max(np.linalg.norm(value), longest * 1e-2), name


def test_only_the_head_is_trained_where_that_was_asked_for(open_runtime):
    for engine in ("torch-head", "ort-training-head"):
        assert sorted(open_runtime(engine).parameters) == ["classifier.bias", "classifier.weight"]


def test_a_gradient_is_the_slope_of_the_loss(runtime):
    given = batch()
    start = runtime.parameters.copy()
    _, found = gradients(runtime, given)
    draw, radius = np.random.default_rng(0), 1e-3
    along = {name: draw.standard_normal(value.shape, np.float32) for name, value in start.items()}
    expected = sum(float((along[name] * found[name]).sum()) for name in found)
    sides = [
        {name: value + np.float32(sign * radius) * along[name] for name, value in start.items()}
        for sign in (1, -1)
    ]
    above, below = runtime.forward(given, sides).astype(np.float64).mean(axis=1)
    assert (above - below) / (2 * radius) == pytest.approx(expected, rel=0.05)


def test_losses_are_the_cross_entropy_of_the_logits(runtime):
    given = batch()
    logits = runtime.logits(given, runtime.parameters).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(shares[np.arange(len(logits)), given["labels"]])
    losses = runtime.forward(given, [runtime.parameters])
    assert (losses.shape, losses.dtype) == ((1, 6), np.float32)
    np.testing.assert_allclose(losses[0], expected, rtol=1e-4)
    np.testing.assert_allclose(gradients(runtime, given)[0], expected, rtol=1e-4)


def test_padding_changes_nothing(runtime):
    given = batch()
    longer = {name: np.pad(given[name], ((0, 0), (0, 5))) for name in ("ids", "mask")}
    losses = runtime.forward(given, [runtime.parameters])
    padded = runtime.forward({**given, **longer}, [runtime.parameters])
    np.testing.assert_allclose(losses, padded, rtol=1e-4)


def test_a_point_does_not_change_the_parameters(runtime):
    before = runtime.parameters.copy()
    runtime.forward(batch(), [{name: 3 * value for name, value in before.items()}])
    for name, value in before.items():
        np.testing.assert_array_equal(runtime.parameters[name], value)


def test_many_texts_are_evaluated_a_few_at_a_time(runtime):
    many = {
        name: np.tile(value, (20,) + (1,) * (value.ndim - 1)) for name, value in batch().items()
    }
    losses = runtime.forward(many, [runtime.parameters])
    np.testing.assert_allclose(losses[0, :6], losses[0, -6:], rtol=1e-5)
    assert losses.shape == (1, 120)


@pytest.mark.parametrize(("engine", "passes"), [("torch", 6), ("torch-head", 2)])
def test_points_that_differ_in_the_head_alone_share_the_encoder(open_runtime, engine, passes):
    opened, counted = open_runtime(engine), []
    opened._network.bert.encoder.register_forward_hook(lambda *_: counted.append(1))
    opened.batch_limit = 3  # six texts in two calls
    points = [{n: (1 + i) * v for n, v in opened.parameters.items()} for i in range(3)]
    together = opened.forward(batch(), points)
    assert len(counted) == passes
    alone = np.concatenate([opened.forward(batch(), [point]) for point in points])
    np.testing.assert_array_equal(together, alone)
    assert np.ptp(together, axis=0).min() > 0


def test_two_steps_from_one_point_are_the_same_bits(runtime):
    first, second = gradients(runtime, batch()), gradients(runtime, batch())
    np.testing.assert_array_equal(first[0], second[0])
    for name, value in first[1].items():
        np.testing.assert_array_equal(value, second[1][name])


def test_a_step_changes_what_the_next_forward_reads(runtime):
    given = batch()
    before = runtime.forward(given, [runtime.parameters]).mean()

    def apply(name, gradient):
        runtime.parameters.subtract(name, np.float32(0.1) * gradient, Key(0, 0))

    runtime.backward(given, apply)
    after = runtime.forward(given, [runtime.parameters]).mean()
    assert after < before
    np.testing.assert_allclose(runtime.backward(given, apply).mean(), after, rtol=1e-5)


def test_a_loss_that_is_not_finite_applies_nothing(runtime):
    name = "classifier.weight"
    runtime.parameters.load({**runtime.parameters, name: runtime.parameters[name] * np.nan})
    losses, found = gradients(runtime, batch())
    assert not np.isfinite(losses).all() and not found


def test_weights_are_the_whole_network_with_the_trained_blocks_in_it(runtime):
    point = {name: value + 1 for name, value in runtime.parameters.items()}
    weights = runtime.weights(point)
    assert {"classifier.weight", "bert.embeddings.word_embeddings.weight"} <= weights.keys()
    for name, value in point.items():
        np.testing.assert_array_equal(weights[name], value)


def test_torch_holds_one_gradient_at_a_time_and_no_second_copy_of_a_weight(open_runtime):
    runtime = open_runtime("torch")
    network = dict(runtime._network.named_parameters())
    held = []

    def apply(name, gradient):
        held.append(sum(parameter.grad is not None for parameter in network.values()))

    runtime.backward(batch(), apply)
    assert len(held) == len(network) and max(held) == 0  # the one being handed over is ours
    for name, value in runtime.parameters.items():
        assert np.shares_memory(value, network[name].detach().numpy())


def test_of_blocks_that_rest_no_gradient_is_formed_and_the_others_are_the_same(open_runtime):
    runtime = open_runtime("torch")
    _, whole = gradients(runtime, batch())
    resting = {name for name in whole if ".layer.0." in name}
    assert resting
    assert resting < set(whole)
    runtime.rest(resting)
    _, found = gradients(runtime, batch())
    assert found.keys() == whole.keys() - resting
    for name, value in found.items():
        np.testing.assert_array_equal(value, whole[name])
    runtime.rest(())
    assert gradients(runtime, batch())[1].keys() == whole.keys()


def test_inputs_of_layers_are_counted_without_padding(open_runtime):
    """One more column of padding changes nothing, and the first projection reads embeddings."""
    runtime = open_runtime("torch")
    given = batch()
    longer = {**given, "ids": np.pad(given["ids"], ((0, 0), (0, 3)))}
    longer["mask"] = np.pad(given["mask"], ((0, 0), (0, 3)))
    found, again = dict(runtime.inputs(given)), dict(runtime.inputs(longer))
    assert found.keys() == again.keys()
    assert any(".query." in name for name in found)
    for name, (squares, transposed) in found.items():
        assert not transposed
        assert squares.shape == (runtime.parameters[name].shape[1],)
        np.testing.assert_allclose(again[name][0], squares, rtol=1e-4)
