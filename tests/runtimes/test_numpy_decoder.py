"""The Llama family in NumPy: its loss is that of the equations, its gradient that of the loss."""

import numpy as np
import pytest
import reference_decoder
from small_decoders import CONFIGS, VOCABULARY, WIDTH, adapter_of, batch_of, write_decoder

from edge_train.errors import ModelError
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.adapter import Adapter, Target
from edge_train.formats.language_folder import open_language_model
from edge_train.rng import Key
from edge_train.runtimes.numpy import attention, stored_matrices
from edge_train.runtimes.numpy.language_model import NumpyLanguageModel

# A product of some dozens of float32 numbers is off by some of their last bits, and a layer takes
# some products of products; measured: 3e-6.
CLOSE = 1e-4


@pytest.fixture(params=CONFIGS)
def decoder(request, tmp_path):
    config, tensors = write_decoder(tmp_path / "model", request.param)
    adapter, blocks = adapter_of(tensors)
    folder = open_language_model(tmp_path / "model")
    return (
        config,
        tensors,
        adapter,
        blocks,
        NumpyLanguageModel.open(folder, adapter, seed=0, blocks=blocks),
    )


def opened(tmp_path, kind="llama"):
    _, tensors = write_decoder(tmp_path / "model", kind)
    adapter, blocks = adapter_of(tensors)
    return NumpyLanguageModel.open(
        open_language_model(tmp_path / "model"), adapter, seed=0, blocks=blocks
    )


def gradients(model, batch):
    found = {}
    losses = model.backward(batch, found.__setitem__)
    return losses, found


@pytest.mark.parametrize("given", ["documents", "plain", "smoothed", "dora"])
def test_loss_and_gradient_are_those_of_the_equations(decoder, given, monkeypatch):
    """Steps of float64 along a random direction of every block, with pieces of a few rows."""
    monkeypatch.setattr(stored_matrices, "PIECE_BYTES", 4 * WIDTH * 5)
    monkeypatch.setattr(attention, "ROWS", 3)
    config, tensors, adapter, blocks, model = decoder
    batch = batch_of()
    if given == "plain":
        batch = {"ids": batch["ids"]}
    if given == "dora":
        adapter, blocks = adapter_of(tensors, "dora")
        model = NumpyLanguageModel(model._decoder, model._matrices, adapter, blocks)
    if given == "smoothed":
        batch["smoothing"] = np.full(2, 0.25, np.float32)

    lengths = {}

    def loss(at):
        return reference_decoder.losses(config, tensors, at, adapter.scale, batch, lengths)

    losses, found = gradients(model, batch)
    wide = {name: value.astype(np.float64) for name, value in blocks.items()}
    np.testing.assert_allclose(losses, loss(wide), rtol=CLOSE)
    np.testing.assert_array_equal(losses, model.forward(batch, [model.parameters])[0])
    assert found.keys() == blocks.keys()
    draw, step = np.random.default_rng(1), 1e-5
    along = {name: draw.standard_normal(value.shape) for name, value in blocks.items()}
    for names in (list(blocks)[n::3] for n in range(3)):  # some blocks at once: fewer passes
        sides = []
        for sign in (1, -1):
            moved = dict(wide)
            for name in names:
                moved[name] = wide[name] + sign * step * along[name]
            sides.append(loss(moved).mean())
        slope = (sides[0] - sides[1]) / (2 * step)
        told = sum((found[name] * along[name]).sum() for name in names)
        size = sum(np.linalg.norm(found[name]) * np.linalg.norm(along[name]) for name in names)
        assert abs(told - slope) < CLOSE * size


def test_a_document_in_a_sequence_learns_as_if_it_stood_alone(decoder):
    *_, model = decoder
    ids = np.random.default_rng(2).integers(0, VOCABULARY, (1, 13))
    document = np.array([[4] * 5 + [9] * 7], np.int32)
    weight = np.full((1, 12), 0.1, np.float32)
    weight[0, 4] = 0  # what it predicts is the first token of the next one
    losses, found = gradients(model, {"ids": ids, "weight": weight, "document": document})
    alone = [
        gradients(model, {"ids": ids[:, start:stop], "weight": weight[:, start : stop - 1]})
        for start, stop in ((0, 6), (5, 13))
    ]
    np.testing.assert_allclose(losses, sum(one for one, _ in alone), rtol=CLOSE)
    for name, gradient in found.items():
        parts = alone[0][1][name] + alone[1][1][name]
        assert np.linalg.norm(gradient - parts) <= CLOSE * np.linalg.norm(parts)


def around(model, count):
    """Return points beside the parameters, and those themselves, as a step of zo has them."""
    rule = ZerothOrder(1.0, dict.fromkeys(model.parameters, 0.05), count)
    beside = [rule.perturbed(model.parameters, Key(4, 2), n, 1.0) for n in range(count)]
    return [*beside, model.parameters]


@pytest.mark.parametrize("form", ["lora", "dora"])
def test_points_that_share_a_call_have_the_losses_that_each_has_alone(decoder, form):
    _, tensors, _, _, model = decoder
    adapter, blocks = adapter_of(tensors, form)
    model = NumpyLanguageModel(model._decoder, model._matrices, adapter, blocks)
    points, batch = around(model, 4), batch_of()
    model.batch_limit = 1
    alone = model.forward(batch, points)
    assert np.ptp(alone, axis=0).min() > 10 * CLOSE  # so that a point is not another
    for limit in (2, 6, None):  # sequences in a call: of one point, of three, of all five
        model.batch_limit = limit
        np.testing.assert_allclose(model.forward(batch, points), alone, rtol=CLOSE)


def test_points_that_share_a_call_read_the_base_once(tmp_path, monkeypatch):
    model = opened(tmp_path)
    read = []
    product = stored_matrices.StoredMatrices.times_transposed
    monkeypatch.setattr(
        stored_matrices.StoredMatrices,
        "times_transposed",
        lambda own, values, name, out: read.append(name) or product(own, values, name, out),
    )
    points, batch = around(model, 4), batch_of()
    for limit, calls in ((10, 1), (6, 2), (2, 5)):
        read.clear()
        model.batch_limit = limit
        model.forward(batch, points)
        assert len(read) == calls * len(model._decoder.linear_layers())


def test_padding_changes_nothing(decoder):
    *_, model = decoder
    ids = np.random.default_rng(2).integers(0, VOCABULARY, (1, 9))
    weight, document = np.full((1, 8), 1 / 8, np.float32), np.zeros((1, 8), np.int32)
    short = gradients(model, {"ids": ids, "weight": weight, "document": document})
    pad = ((0, 0), (0, 3))
    batch = {"ids": np.pad(ids, pad), "weight": np.pad(weight, pad)}
    batch["document"] = np.pad(document, pad, constant_values=7)
    losses, found = gradients(model, batch)
    np.testing.assert_allclose(losses, short[0], rtol=CLOSE)
    for name, gradient in found.items():
        size = np.linalg.norm(short[1][name])
        assert np.linalg.norm(gradient - short[1][name]) <= CLOSE * size


def test_the_next_logits_are_those_of_the_whole_sequence(decoder):
    """With what was kept of earlier calls, with other ids after it, and with another adapter."""
    *_, blocks, model = decoder
    ids = np.random.default_rng(4).integers(0, VOCABULARY, 20).tolist()

    def fresh(some):
        other = NumpyLanguageModel(
            model._decoder, model._matrices, decoder[2], dict(model.parameters)
        )
        return other.next_logits(some)

    for some in (ids[:4], ids[:5], ids[:12], ids[:7] + [1, 2], ids):
        found = model.next_logits(some)
        np.testing.assert_allclose(found, fresh(some), rtol=CLOSE, atol=CLOSE * abs(found).max())
    before = model.next_logits(ids)
    blocks[next(iter(blocks))][...] += 0.5
    after = model.next_logits(ids)
    np.testing.assert_array_equal(after, fresh(ids))
    assert abs(after - before).max() > CLOSE * abs(after).max()


def test_only_layers_from_the_lowest_adapter_on_are_differentiated(tmp_path):
    _, tensors = write_decoder(tmp_path / "model", "llama")
    whole, blocks = adapter_of(tensors)
    some = tuple(t for t in whole.targets if t.path == "model.layers.1.mlp.up_proj")
    kept = {name: value for name, value in blocks.items() if name.startswith(some[0].path)}
    rest = {name: np.zeros_like(v) if name not in kept else v for name, v in blocks.items()}
    folder = open_language_model(tmp_path / "model")
    batch = batch_of()
    one = NumpyLanguageModel.open(folder, Adapter("lora", 3, 5.0, some), seed=0, blocks=kept)
    _, found = gradients(one, batch)
    _, wanted = gradients(NumpyLanguageModel.open(folder, whole, seed=0, blocks=rest), batch)
    assert found.keys() == kept.keys()
    for name, gradient in found.items():
        size = np.linalg.norm(wanted[name])
        assert size > 0 and np.linalg.norm(gradient - wanted[name]) <= CLOSE * size


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_numbers_do_not_depend_on_how_many_threads_compute(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(stored_matrices, "PIECE_BYTES", 4 * WIDTH * 5)
    _, tensors = write_decoder(tmp_path / "model", "gemma2")
    adapter, blocks = adapter_of(tensors, kind)
    model = NumpyLanguageModel.open(
        open_language_model(tmp_path / "model"), adapter, seed=0, blocks=blocks
    )
    batch = batch_of()
    losses, found = gradients(model, batch)
    for count in (3, 1, 2):
        model.use_threads(count)
        again, same = gradients(model, batch)
        np.testing.assert_array_equal(losses, again)
        for name, gradient in found.items():
            np.testing.assert_array_equal(gradient, same[name])
    model.close()


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_new_adapter_computes_what_the_base_does(tmp_path, kind):
    _, tensors = write_decoder(tmp_path / "model", "qwen2")
    adapter, _ = adapter_of(tensors, kind)
    folder = open_language_model(tmp_path / "model")
    new = NumpyLanguageModel.open(folder, adapter, seed=5)
    none = NumpyLanguageModel.open(folder, Adapter("lora", 3, 5.0, ()), seed=5)
    assert {name: block.shape for name, block in new.parameters.items()} == adapter.shapes()
    drawn = [name for name in new.parameters if name.endswith("lora_A")]
    assert all(new.parameters[name].any() for name in drawn)
    batch = batch_of()
    losses = [one.forward(batch, [one.parameters])[0] for one in (new, none)]
    np.testing.assert_allclose(*losses, rtol=CLOSE)


def test_a_loss_that_is_not_finite_hands_over_nothing(tmp_path):
    model = opened(tmp_path)
    model.parameters["model.layers.0.mlp.down_proj.lora_B"][...] = np.nan
    losses, found = gradients(model, {"ids": batch_of()["ids"]})
    assert np.isnan(losses).all() and not found


def test_no_token_that_counts_is_a_loss_of_zero_and_no_gradient(tmp_path):
    batch = batch_of()
    losses, found = gradients(opened(tmp_path), {**batch, "weight": np.zeros_like(batch["weight"])})
    assert not losses.any()
    assert found and not any(gradient.any() for gradient in found.values())


def test_what_the_engine_does_not_compute_is_refused_by_name(tmp_path):
    config, tensors = write_decoder(tmp_path / "model", "llama")
    adapter, blocks = adapter_of(tensors)
    folder = open_language_model(tmp_path / "model")

    def refused(match, adapter=adapter, **changes):
        wrong = type(folder)(
            folder.path, config | changes, folder.vocabulary, folder.positions, folder.files
        )
        with pytest.raises(ModelError, match=match):
            NumpyLanguageModel.open(wrong, adapter, seed=0, blocks=blocks)

    refused("is a 'gpt2', and engine 'numpy' trains llama", model_type="gpt2")
    refused("activation is 'relu'", hidden_act="relu")
    refused("stretches positions by 'dynamic'", rope_scaling={"rope_type": "dynamic"})
    refused("lacks a value", rope_scaling={"rope_type": "linear"})
    refused("3 heads of 8 share 2", num_attention_heads=3)
    refused("lacks a value", num_attention_heads="four")
    refused("expected 80 rows of 24", num_attention_heads=6)
    refused("no tensor 'model.layers.3", num_hidden_layers=4)
    refused(
        "has tensors of layer 2, and by its configuration the last one is layer 1",
        num_hidden_layers=2,
    )
    refused(r"mlp.down_proj.weight' is \[24, .*\], .*\[24, 999\]", intermediate_size=999)
    other = Adapter("lora", 3, 5.0, (Target("lm_head", VOCABULARY, WIDTH),))
    refused("no linear layer 'lm_head'", adapter=other)


def test_weights_that_are_not_finite_are_named(tmp_path):
    _, tensors = write_decoder(tmp_path / "model", "llama")
    from safetensors.numpy import save_file

    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = np.inf
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    adapter, blocks = adapter_of(tensors)
    model = NumpyLanguageModel.open(
        open_language_model(tmp_path / "model"), adapter, seed=0, blocks=blocks
    )
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight.*not finite"):
        model.forward(batch_of(), [model.parameters])
