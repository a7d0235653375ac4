"""A language model whose weights live outside the network computes and differentiates as torch."""

import json

import numpy as np
import pytest

from edge_train.arrays.factored import Factors, Lookups, dense
from edge_train.arrays.parameters import Int4Parameters, Int8Parameters
from edge_train.estimators.backprop import Backprop
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.language_folder import open_language_model
from edge_train.rng import Key
from edge_train.runtimes.torch.rounded_factors import RoundedFactors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KINDS = {
    "llama": {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 60,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "vocab_size": 60,
        "n_positions": 64,
        "initializer_range": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
}
KINDS["tied llama"] = {**KINDS["llama"], "tie_word_embeddings": True}


def reference(kind):
    config = dict(KINDS[kind])
    config = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    network = reference(request.param)
    network.save_pretrained(tmp_path / "model")
    return open_language_model(tmp_path / "model"), network


def batch_of(vocabulary=60, sequences=3, length=11):
    draw = np.random.default_rng(0)
    return {"ids": draw.integers(0, vocabulary, (sequences, length + 1))}


def torch_losses(network, batch):
    ids = torch.from_numpy(batch["ids"])
    logits = network(input_ids=ids[:, :-1], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return losses.view(len(ids), -1).mean(dim=1)


def open_runtime(folder, **options):
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    return TorchLanguageModel.open(folder, **{"quant": "none", "threads": 1, "seed": 0, **options})


def test_losses_and_gradients_are_those_of_plain_autograd(folder):
    model, network = folder
    runtime, batch = open_runtime(model), batch_of()
    losses = torch_losses(network, batch)
    losses.mean().backward()
    found = {}
    ours = runtime.backward(batch, lambda name, gradient: found.update({name: gradient}))
    np.testing.assert_allclose(ours, losses.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(runtime.forward(batch, [runtime.parameters])[0], ours, rtol=1e-5)
    own = dict(network.named_parameters())
    assert found.keys() == own.keys() == set(runtime.parameters)
    for name, parameter in own.items():
        assert isinstance(found[name], Factors) is (parameter.ndim == 2), name
        expected = parameter.grad.numpy()
        error = np.linalg.norm(dense(found[name]) - expected)
        assert error < 1e-4 * np.linalg.norm(expected), name


def test_rows_of_gradients_are_rounded_where_that_is_asked_for(folder):
    model, _ = folder
    found = {}
    for rounded in (False, True):
        runtime = open_runtime(model, dtype="bfloat16", rounded=rounded)
        runtime.backward(batch_of(), lambda name, one, to=rounded: found.update({(name, to): one}))
    kinds = {name: type(one) for (name, rounded), one in found.items() if rounded}
    assert RoundedFactors in kinds.values()
    for name, kind in kinds.items():
        plain, ours = dense(found[name, False]), dense(found[name, True])
        if kind is RoundedFactors:
            assert np.linalg.norm(ours - plain) < 2.0**-7 * np.linalg.norm(plain), name
        else:
            assert (ours == plain).all(), name


@pytest.mark.parametrize(("quant", "kind"), [("int8", Int8Parameters), ("int4", Int4Parameters)])
def test_quantized_weights_compute_what_their_float_values_compute(folder, quant, kind):
    model, network = folder
    runtime, batch = open_runtime(model, quant=quant), batch_of()
    assert isinstance(runtime.parameters, kind)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(runtime.parameters[name]))
    losses = torch_losses(network, batch)
    losses.mean().backward()
    found = {}
    ours = runtime.backward(batch, lambda name, gradient: found.update({name: gradient}))
    np.testing.assert_allclose(ours, losses.detach().numpy(), rtol=1e-5)
    for name, parameter in network.named_parameters():
        expected = parameter.grad.numpy()
        error = np.linalg.norm(dense(found[name]) - expected)
        assert error < 1e-4 * np.linalg.norm(expected), name


def test_a_weight_may_change_while_what_lies_before_it_is_still_to_be_differentiated(folder):
    """The step of descent in the backward pass is that of gradients taken all at once."""
    model, network = folder
    runtime, batch = open_runtime(model), batch_of()

    def descend(name, gradient):
        runtime.parameters[name][...] -= np.float32(0.5) * dense(gradient)

    runtime.backward(batch, descend)
    torch_losses(network, batch).mean().backward()
    for name, parameter in network.named_parameters():
        expected = (parameter - 0.5 * parameter.grad).detach().numpy()
        np.testing.assert_allclose(runtime.parameters[name], expected, atol=2e-5)


def test_a_table_of_words_gets_the_rows_that_were_looked_up_and_no_factor_as_long_as_it(folder):
    model, _ = folder
    runtime, batch = open_runtime(model), batch_of()
    found = {}
    runtime.backward(batch, lambda name, gradient: found.update({name: gradient}))
    seen = np.unique(batch["ids"][:, :-1])
    tables = [one for one in found.values() if isinstance(one, Lookups) and one.shape[0] == 60]
    assert [table.ids.tolist() for table in tables] == [seen.tolist()]
    tied = any("lm_head" in name for name in found) is False
    assert len(tables[0].rest.left) == (batch["ids"][:, 1:].size if tied else 0)


def test_a_folder_without_weights_starts_from_the_seed(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(KINDS["llama"]))
    model = open_language_model(tmp_path)
    one, same, other = (open_runtime(model, seed=seed).parameters for seed in (1, 1, 2))
    name = "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(one[name], same[name])
    assert np.abs(one[name] - other[name]).max() > 0.1
    assert one[name].std() == pytest.approx(0.1, rel=0.1)
    assert (one["model.norm.weight"] == 1).all()
    losses = open_runtime(model).forward(batch_of(), [0][:0])
    assert losses.shape == (0, 3)


def test_what_an_apply_raises_comes_out_and_leaves_the_runtime_usable(folder):
    model, _ = folder
    runtime, batch = open_runtime(model), batch_of()

    def refuse(name, gradient):
        raise KeyError(name)

    with pytest.raises(KeyError):
        runtime.backward(batch, refuse)
    seen = []
    runtime.backward(batch, lambda name, gradient: seen.append(name))
    assert sorted(seen) == sorted(runtime.parameters)


def test_the_gradients_of_micro_batches_add_up_to_that_of_the_batch(folder):
    model, _ = folder
    runtime, batch = open_runtime(model, quant="int8"), batch_of(sequences=5)
    whole, sums, last = {}, {}, []
    Backprop().estimate(runtime, None, batch, None, lambda n, g: whole.update({n: dense(g)}))

    def add(name, part):
        sums[name] = sums.get(name, 0) + np.float32(part.share) * dense(part.gradient)
        last.append(part.last)

    Backprop(2).estimate(runtime, None, batch, None, add)
    assert last == [False] * 2 * len(whole) + [True] * len(whole)
    for name, expected in whole.items():
        error = np.linalg.norm(sums[name] - expected)
        assert error < 1e-5 * np.linalg.norm(expected) + 1e-9, name


@pytest.mark.parametrize("quant", ["none", "int8", "int4"])
def test_a_point_beside_the_weights_is_evaluated_without_touching_them(folder, quant):
    model, network = folder
    runtime = open_runtime(model, quant=quant)
    before = runtime.parameters.copy()
    scale = dict.fromkeys(runtime.parameters, 0.01)
    moved = ZerothOrder(1.0, scale).perturbed(runtime.parameters, Key(3, 4), 0, 1.0)
    batch = batch_of()
    at, there = runtime.forward(batch, [runtime.parameters, moved])
    assert np.abs(at - there).max() > 1e-3
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(moved[name]))
    np.testing.assert_allclose(there, torch_losses(network, batch).detach(), rtol=2e-5)
    for name, value in runtime.parameters.copy().items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(runtime.forward(batch, [runtime.parameters])[0], at)


def test_dropout_is_drawn_again_in_every_form_of_a_step(tmp_path):
    """Masks belong to samples: not to the pass, the part of a batch or the layer run again."""
    network = reference("gpt2")
    for name in ("attn_pdrop", "embd_pdrop", "resid_pdrop"):
        setattr(network.config, name, 0.3)
    network.save_pretrained(tmp_path / "model")
    folder = open_language_model(tmp_path / "model")
    runtime = open_runtime(folder, attention="eager")
    ids = np.random.default_rng(0).integers(0, 60, (4, 9))
    batch = {"ids": ids, "dropout": np.arange(4) * 7919}

    def step(**changed):
        gradients = {}
        losses = runtime.backward(
            {**batch, **changed}, lambda name, g: gradients.update({name: dense(g).copy()})
        )
        return losses, gradients

    losses, gradients = step()
    again, same = step()
    assert losses.tolist() == again.tolist()
    assert all((gradients[name] == same[name]).all() for name in gradients)
    part, _ = step(ids=ids[1:3], dropout=batch["dropout"][1:3])
    # the same masks, in products of other sizes: rounding of float32
    np.testing.assert_allclose(part, losses[1:3], rtol=1e-5)
    other, _ = step(dropout=batch["dropout"] + 1)
    assert np.abs(other - losses).max() > 1e-3
    without = runtime.forward({"ids": ids}, [runtime.parameters])[0]
    assert np.abs(without - losses).max() > 1e-3
    # the gradient is the slope of this very loss, so a layer that runs again draws what it drew
    name = "transformer.h.0.mlp.c_fc.weight"
    block, direction = runtime.parameters[name], np.random.default_rng(5).standard_normal((32, 128))
    direction = (direction / np.linalg.norm(direction)).astype(np.float32)
    slopes = []
    for sign in (1, -1):
        block += np.float32(sign * 0.05) * direction
        slopes.append(step()[0].astype(np.float64).mean())
        block -= np.float32(sign * 0.05) * direction
    slope = (slopes[0] - slopes[1]) / 0.1
    assert (gradients[name] * direction).sum() == pytest.approx(slope, rel=0.05)


_SMALL = {name: value for name, value in KINDS["llama"].items() if name != "model_type"}
_APART = {
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "vocab_size": 60,
        "max_position_embeddings": 64,
        "pad_token_id": None,
    },
    "falcon_h1": {
        **_SMALL,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_chunk_size": 16,
        "lm_head_multiplier": 0.5,
    },
    "llama4_text": {
        **_SMALL,
        "intermediate_size_mlp": 48,
        "head_dim": 8,
        "num_local_experts": 2,
        "layer_types": ["full_attention"] * 2,
        "no_rope_layers": [1, 1],
        "moe_layers": [],
    },
}


@pytest.mark.parametrize("kind", _APART)
def test_logits_of_kinds_that_ask_more_of_their_body_are_never_whole(tmp_path, kind):
    """OPT calls its body's decoder, Falcon-H1 reads a scale there, Llama 4 names it otherwise."""
    torch.manual_seed(0)
    try:
        config = transformers.AutoConfig.for_model(kind, **_APART[kind])
    except ValueError:
        pytest.skip(f"this transformers does not know {kind}")
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    network.save_pretrained(tmp_path)
    runtime = open_runtime(open_language_model(tmp_path))
    shapes = []
    product = type(runtime._halves.head).forward_product
    runtime._logits_at_once = 4 * 60 * 5  # five positions, of four copies
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            type(runtime._halves.head),
            "forward_product",
            lambda head, values: shapes.append(len(values)) or product(head, values),
        )
        [losses] = runtime.forward(batch_of(), [runtime.parameters])
    assert len(shapes) > 1 and max(shapes) <= 20
    with torch.no_grad():
        expected = torch_losses(network, batch_of()).numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
