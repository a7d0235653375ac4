"""Adapters on torch: losses and gradients as peft has them, on any base, whatever shares a row."""

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import transformers
from torch import nn

from edge_train.errors import ModelError
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.adapter import Adapter, Target, write_adapter
from edge_train.formats.language_apart import keeps_apart
from edge_train.formats.language_folder import open_language_model
from edge_train.rng import Key
from edge_train.runtimes.torch import adapted_language_model, adapted_layers
from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
from edge_train.runtimes.torch.adapted_network import linear_layers

SAME = 2e-5  # two orders of summation in float32, relative to the largest number
LENGTH = 12
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
KINDS = {
    "llama": lambda: transformers.LlamaConfig(**_SIZES),
    "qwen2": lambda: transformers.Qwen2Config(**_SIZES, tie_word_embeddings=True),
    "gemma2": lambda: transformers.Gemma2Config(
        **_SIZES, head_dim=8, final_logit_softcapping=2.0, sliding_window=5
    ),
    "opt": lambda: transformers.OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=32,
        vocab_size=60,
        init_std=0.3,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=32,
        vocab_size=60,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each kind, made when it is asked for."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def make(kind):
        if kind not in made:
            with torch.random.fork_rng():
                torch.manual_seed(5)
                network = transformers.AutoModelForCausalLM.from_config(KINDS[kind]())
                for parameter in network.parameters():  # biases and norms that count
                    if parameter.ndim == 1:
                        nn.init.normal_(parameter, 1.0 if "norm" in kind else 0.3, 0.2)
            network.save_pretrained(root / kind)
            made[kind] = open_language_model(root / kind)
        return made[kind]

    return make


def adapter_of(folder, kind="lora", **words):
    return Adapter(kind, 3, 6.0, linear_layers(folder), base=str(folder.path), **words)


def some_blocks(adapter, lengths=None, seed=3):
    """Blocks of which B is not zero."""
    blocks = adapter.drawn(seed, lengths)
    draw = np.random.default_rng(seed)
    for name, value in blocks.items():
        if name.endswith("lora_B"):
            blocks[name] = draw.normal(0, 0.1, value.shape).astype(np.float32)
        elif name.endswith("magnitude"):
            blocks[name] = value * draw.uniform(0.8, 1.2, value.shape).astype(np.float32)
    return blocks


def opened(folder, adapter, blocks=None, **words):
    words = {"quant": "none", "threads": 1, "seed": 3} | words
    return AdaptedLanguageModel.open(folder, adapter, blocks=blocks, **words)


def batch_of(sequences=2, seed=1, length=LENGTH):
    return {"ids": np.random.default_rng(seed).integers(1, 60, (sequences, length + 1))}


def gradients(runtime, batch):
    found = {}
    losses = runtime.backward(batch, lambda name, value: found.update({name: value.copy()}))
    return losses, found


def of_peft(folder, adapter, blocks, batch, root):
    """Losses and gradients of transformers with peft, by our names."""
    import peft

    write_adapter(root, adapter, blocks)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # between peft and transformers
        loaded = peft.PeftModel.from_pretrained(base, str(root), is_trainable=True).eval()
    ids = torch.from_numpy(batch["ids"])
    logits = loaded(input_ids=ids[:, :-1]).logits
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    ).view(len(ids), -1)
    weight = batch.get("weight")
    weight = torch.full(losses.shape, 1 / losses.shape[1]) if weight is None else weight
    losses = (losses * torch.as_tensor(weight)).sum(1)
    losses.mean().backward()
    found = {}
    for name, parameter in loaded.named_parameters():
        if parameter.requires_grad:
            short = name.removeprefix("base_model.model.").replace(".default", "")
            short = short.replace("_magnitude_vector", "_magnitude").removesuffix(".weight")
            found[short] = parameter.grad.numpy()
    return losses.detach().numpy(), found


def assert_same(found, expected, tolerance=SAME):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        most = tolerance * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=most, err_msg=name)


@pytest.mark.parametrize("form", ["lora", "dora"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_peft(folders, tmp_path, kind, form):
    folder = folders(kind)
    adapter = adapter_of(folder, form)
    lengths = None
    if form == "dora":
        lengths = {t.path: np.full(t.outputs, 1.5, np.float32) for t in adapter.targets}
    blocks = some_blocks(adapter, lengths)
    expected, wanted = of_peft(folder, adapter, blocks, batch_of(), tmp_path)
    runtime = opened(folder, adapter, blocks)
    losses, found = gradients(runtime, batch_of())
    np.testing.assert_allclose(losses, expected, rtol=SAME)
    assert_same(found, wanted, 5 * SAME)
    np.testing.assert_allclose(
        runtime.forward(batch_of(), [runtime.parameters])[0], expected, rtol=SAME
    )


def dequantized(folder, quant, root):
    """The folder's weights after a round trip through few bits, as a folder in float32."""
    from safetensors.numpy import load_file, save_file

    from edge_train.arrays.parameters import Int4Parameters, Int8Parameters

    kind = {"int8": Int8Parameters, "int4": Int4Parameters}[quant]
    shutil.copytree(folder.path, root, dirs_exist_ok=True)
    path = root / "model.safetensors"
    values = load_file(path)
    coded = kind(values)
    save_file({name: np.asarray(coded[name]) for name in values}, path, {"format": "pt"})
    return open_language_model(root)


def assert_computes_the_same(first, second, batch, tolerance=SAME):
    losses, found = gradients(first, batch)
    expected, wanted = gradients(second, batch)
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    assert_same(found, wanted, 5 * tolerance)


@pytest.mark.parametrize("form", ["lora", "dora"])
@pytest.mark.parametrize("quant", ["int8", "int4"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_base_in_few_bits_computes_as_its_numbers_in_float32(
    folders, tmp_path, kind, quant, form
):
    folder = folders(kind)
    plain = dequantized(folder, quant, tmp_path)
    adapter = adapter_of(folder, form)
    lengths = {t.path: np.full(t.outputs, 1.5, np.float32) for t in adapter.targets}
    blocks = some_blocks(adapter, lengths)
    few, whole = opened(folder, adapter, blocks, quant=quant), opened(plain, adapter, blocks)
    assert_computes_the_same(few, whole, batch_of())


def test_lean_reads_the_base_from_its_file_and_computes_the_same(folders):
    folder = folders("llama")
    adapter = adapter_of(folder)
    blocks = some_blocks(adapter)
    assert_computes_the_same(
        opened(folder, adapter, blocks, lean=True), opened(folder, adapter, blocks), batch_of()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_changes_no_loss(folders, kind):
    folder = folders(kind)
    network = transformers.AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32)
    ids = torch.from_numpy(batch_of()["ids"])
    with torch.no_grad():
        logits = network(input_ids=ids[:, :-1]).logits
    expected = nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    for form in ("lora", "dora"):
        runtime = opened(folder, adapter_of(folder, form))
        [losses] = runtime.forward(batch_of(), [runtime.parameters])
        np.testing.assert_allclose(losses, expected.view(2, -1).mean(1).numpy(), rtol=SAME)


def packed():
    """Three documents in one row, the last one of padding, and each of them alone."""
    ids = batch_of(1, seed=7)["ids"]
    document = np.array([[3] * 5 + [4] * 5 + [9] * 2], np.int32)
    weight = np.zeros((1, LENGTH), np.float32)
    weight[0, [1, 3, 5, 6, 8]] = 0.2, 0.3, 0.1, 0.25, 0.15
    parts = [{"ids": ids[:, s : s + 6], "weight": weight[:, s : s + 5]} for s in (0, 5)]
    return {"ids": ids, "document": document, "weight": weight}, parts


@pytest.mark.parametrize("kind", [kind for kind in KINDS if keeps_apart(kind)])
def test_documents_of_a_row_are_computed_as_if_each_were_alone(folders, kind):
    folder = folders(kind)
    adapter = adapter_of(folder)
    runtime = opened(folder, adapter, some_blocks(adapter))
    together, parts = packed()
    losses, found = gradients(runtime, together)
    alone = [gradients(runtime, part) for part in parts]
    np.testing.assert_allclose(losses, sum(one for one, _ in alone), rtol=SAME)
    wanted = {name: alone[0][1][name] + alone[1][1][name] for name in found}
    assert_same(found, wanted, 5 * SAME)


def test_documents_of_a_kind_that_cannot_keep_them_apart_are_refused(folders, monkeypatch):
    """Nobody packs them for such a kind; who did would get other losses without a word."""
    from edge_train.formats import language_apart

    folder = folders("llama")
    adapter = adapter_of(folder)
    runtime = opened(folder, adapter, some_blocks(adapter))
    monkeypatch.setattr(language_apart, "_APART", frozenset(("gpt2",)))
    with pytest.raises(ValueError, match="a 'llama' reads one document"):
        gradients(runtime, packed()[0])


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_pieces_of_logits_change_nothing(folders, monkeypatch, kind):
    folder = folders(kind)
    adapter = adapter_of(folder)
    blocks = some_blocks(adapter)
    batch = batch_of() | {"smoothing": np.full(2, 0.1, np.float32)}
    whole = gradients(opened(folder, adapter, blocks), batch)
    runtime = opened(folder, adapter, blocks)
    monkeypatch.setattr(runtime, "_logits_at_once", 60 * 5)
    pieces = gradients(runtime, batch)
    np.testing.assert_allclose(pieces[0], whole[0], rtol=SAME)
    assert_same(pieces[1], whole[1], 5 * SAME)


def test_logits_of_a_network_without_halves_give_the_same(folders, monkeypatch):
    folder = folders("llama")
    adapter = adapter_of(folder)
    blocks = some_blocks(adapter)
    together, _ = packed()
    halves = gradients(opened(folder, adapter, blocks), together)
    monkeypatch.setattr(adapted_language_model, "halves_of", lambda *_: None)
    whole = gradients(opened(folder, adapter, blocks), together)
    np.testing.assert_allclose(whole[0], halves[0], rtol=SAME)
    assert_same(whole[1], halves[1], 5 * SAME)


def test_a_layer_is_computed_again_up_to_its_last_product(folders, monkeypatch):
    folder = folders("llama")
    counted = []
    product = adapted_layers.times_transposed
    monkeypatch.setattr(
        adapted_layers,
        "times_transposed",
        lambda values, matrix: counted.append(matrix.shape) or product(values, matrix),
    )
    adapter = adapter_of(folder)
    runtime = opened(folder, adapter, some_blocks(adapter))
    counted.clear()
    gradients(runtime, batch_of())
    # of two layers: seven products forward, six again; and the head
    assert len(counted) == 2 * (7 + 6) + 1
    assert counted.count((32, 48)) == 2  # down_proj, which is the last


def test_an_adapter_of_another_base_is_refused_by_its_layer(folders):
    folder = folders("llama")
    adapter = adapter_of(folder)
    for wrong in (Target("model.layers.7.mlp.up_proj", 48, 32), Target("lm_head", 60, 31)):
        with pytest.raises(ModelError, match="another base"):
            opened(folder, replace(adapter, targets=(wrong,)))


def test_losses_at_points_are_those_of_the_points(folders):
    folder = folders("llama")
    adapter = adapter_of(folder)
    blocks, others = some_blocks(adapter), some_blocks(adapter, seed=9)
    runtime = opened(folder, adapter, dict(blocks))
    [first, second] = runtime.forward(batch_of(), [runtime.parameters, others])
    [alone] = opened(folder, adapter, others).forward(batch_of(), [others])
    np.testing.assert_allclose(second, alone, rtol=SAME)
    assert (first != second).all()
    found = runtime.forward(batch_of(), [runtime.parameters])[0]
    np.testing.assert_allclose(found, first, rtol=SAME)


def around(runtime, count):
    """Return points beside the parameters, and those themselves, as a step of zo has them."""
    scale = dict.fromkeys(runtime.parameters, 0.05)
    rule = ZerothOrder(1.0, scale, count)
    key = Key(4, 2)
    return [
        *(rule.perturbed(runtime.parameters, key, n, 1.0) for n in range(count)),
        runtime.parameters,
    ]


@pytest.mark.parametrize("form", ["lora", "dora"])
@pytest.mark.parametrize("kind", KINDS)
def test_points_that_share_a_call_have_the_losses_that_each_has_alone(folders, kind, form):
    """In float32, on documents that share a row, and of OPT, whose layers are given other rows."""
    folder = folders(kind)
    adapter = adapter_of(folder, form)
    lengths = {t.path: np.full(t.outputs, 1.5, np.float32) for t in adapter.targets}
    runtime = opened(folder, adapter, some_blocks(adapter, lengths))
    points = around(runtime, 4)
    for batch in (batch_of(), *([packed()[0]] if keeps_apart(kind) else [])):
        runtime.batch_limit = 1
        alone = runtime.forward(batch, points)
        runtime.batch_limit = 6  # three points in a call, and then two; or all five
        together = runtime.forward(batch, points)
        assert np.ptp(alone, axis=0).min() > 100 * SAME  # so that a point is not another
        np.testing.assert_allclose(together, alone, rtol=SAME)
    assert runtime._takes_points == (kind != "opt")


def test_points_that_share_a_call_read_the_base_once(folders, monkeypatch):
    folder = folders("llama")
    adapter = adapter_of(folder)
    runtime = opened(folder, adapter, some_blocks(adapter))
    read = []
    product = adapted_layers.times_transposed
    monkeypatch.setattr(
        adapted_layers,
        "times_transposed",
        lambda values, matrix: read.append(matrix.shape) or product(values, matrix),
    )
    points = around(runtime, 4)
    for limit, calls in ((10, 1), (6, 2), (2, 5), (None, 3)):
        read.clear()
        runtime.batch_limit = limit  # without one, four sequences
        runtime.forward(batch_of(), points)
        assert len(read) == calls * (2 * 7 + 1)
