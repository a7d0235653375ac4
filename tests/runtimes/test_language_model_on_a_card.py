"""Language models on a card: nothing meets a tensor of the host, and the numbers are the same.

A card that is made of the host stands in for one (`stand_in_card`), so what is tested is where
tensors are, not the kernels of a real card; those are in `tests/gpu`.
"""

import gguf_models
import numpy as np
import pytest
import stand_in_card
from fake_cuda import FakeCuda
from gguf_files import F16, Q4_0, Q8_0

pytest.importorskip("torch")

import torch
import transformers
from stand_in_card import CARD, MixedDevices, StandInCard

from edge_train.arrays.factored import dense
from edge_train.errors import InputError
from edge_train.formats.adapter import Adapter
from edge_train.formats.gguf.model import open_gguf
from edge_train.formats.language_folder import open_language_model
from edge_train.runtimes.torch import adapted_language_model, card, card_memory, language_model
from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
from edge_train.runtimes.torch.adapted_network import linear_layers
from edge_train.runtimes.torch.language_model import TorchLanguageModel

SAME = 1e-4  # attention fused and as matrices: other orders of summation, relative to the largest
NOTHING = 1e-3  # of the largest number: what is smaller, as the zero of a bias of keys, is noise
ROUNDED = 0.03  # a few roundings to bfloat16, of 8 bits, on each of two ways
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
    "gemma2": lambda: transformers.Gemma2Config(
        **_SIZES, head_dim=8, final_logit_softcapping=2.0, sliding_window=5
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
    "opt": lambda: transformers.OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=32,
        vocab_size=60,
        init_std=0.3,
        pad_token_id=None,
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("models"), {}

    def make(kind):
        if kind not in made:
            with torch.random.fork_rng():
                torch.manual_seed(5)
                network = transformers.AutoModelForCausalLM.from_config(KINDS[kind]())
            network.save_pretrained(root / kind)
            made[kind] = open_language_model(root / kind)
        return made[kind]

    return make


def on_card(monkeypatch):
    return stand_in_card.on_card(monkeypatch, adapted_language_model, language_model, calls=100)


def batch_of(vocabulary=60, sequences=2, length=12):
    draw = np.random.default_rng(1)
    ids = draw.integers(1, vocabulary, (sequences, length + 1))
    weight = np.full((sequences, length), 1 / length, np.float32)
    weight[0, :3] = 0
    return {"ids": ids, "weight": weight, "smoothing": np.full(sequences, 0.1, np.float32)}


def passes(runtime, batch, others=None):
    """Return all that an engine is asked for: gradients, losses at points, logits."""
    found = {}

    def apply(name, gradient):
        found[name] = np.array(dense(gradient), np.float32)

    found["losses"] = runtime.backward(batch, apply)
    points = [runtime.parameters, *([others] if others else [])]
    found["at points"] = runtime.forward(batch, points)
    found["next"] = runtime.next_logits(batch["ids"][0].tolist())
    return found


def assert_same(found, expected, tolerance=SAME):
    assert found.keys() == expected.keys()
    least = NOTHING * max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        most = tolerance * max(np.abs(value).max(), least)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=most, err_msg=name)


def adapter_of(folder, kind):
    return Adapter(kind, 3, 6.0, linear_layers(folder), base=str(folder.path))


def blocks_of(adapter, seed=3):
    lengths = {t.path: np.full(t.outputs, 1.5, np.float32) for t in adapter.targets}
    blocks = adapter.drawn(seed, lengths)
    draw = np.random.default_rng(seed)
    for name, value in blocks.items():
        if name.endswith("lora_B"):
            blocks[name] = draw.normal(0, 0.1, value.shape).astype(np.float32)
    return blocks


def assert_an_adapter_is_the_same_on_a_card(
    monkeypatch, folder, kind, batch, tolerance=SAME, **words
):
    adapter = adapter_of(folder, kind)
    words = {"quant": "none", "threads": 1, "seed": 3, "blocks": blocks_of(adapter)} | words
    others = blocks_of(adapter, seed=4)
    expected = passes(AdaptedLanguageModel.open(folder, adapter, **words), batch, others)
    with on_card(monkeypatch):
        runtime = AdaptedLanguageModel.open(folder, adapter, device="cuda", **words)
        assert runtime.device == CARD.type
        assert_same(passes(runtime, batch, others), expected, tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_computes_on_a_card_what_it_does_on_the_host(folders, monkeypatch, kind):
    assert_an_adapter_is_the_same_on_a_card(monkeypatch, folders(kind), "lora", batch_of())


@pytest.mark.parametrize(
    "words",
    [
        {"quant": "int8"},
        {"quant": "int4"},
        {"lean": True},
        {"dtype": "bfloat16", "quant": "int4"},
    ],
)
def test_a_base_in_few_bits_or_in_its_file_computes_on_a_card(folders, monkeypatch, words):
    tolerance = ROUNDED if "dtype" in words else SAME
    assert_an_adapter_is_the_same_on_a_card(
        monkeypatch, folders("llama"), "dora", batch_of(), tolerance, **words
    )


@pytest.mark.parametrize(("stored", "lean"), [(F16, False), (Q8_0, False), (Q4_0, True)])
def test_blocks_of_a_gguf_file_are_decoded_on_a_card(tmp_path, monkeypatch, stored, lean):
    gguf_models.make_gguf(tmp_path / "model.gguf", "llama", stored)
    folder = open_gguf(tmp_path / "model.gguf")
    batch = batch_of(folder.vocabulary)
    assert_an_adapter_is_the_same_on_a_card(monkeypatch, folder, "lora", batch, lean=lean)


@pytest.mark.parametrize(
    ("kind", "quant"),
    [("llama", "int8"), ("llama", "int4"), *((kind, "none") for kind in KINDS)],
)
def test_all_weights_compute_on_a_card_what_they_do_on_the_host(folders, monkeypatch, kind, quant):
    words = {"quant": quant, "threads": 1, "seed": 3}
    folder = folders(kind)
    expected = passes(TorchLanguageModel.open(folder, **words), batch_of())
    with on_card(monkeypatch):
        runtime = TorchLanguageModel.open(folder, device="cuda", **words)
        assert_same(passes(runtime, batch_of()), expected)


def test_a_change_of_a_vector_reaches_the_card(folders, monkeypatch):
    """Norms are copies there, which the next pass takes anew."""
    words = {"quant": "none", "threads": 1, "seed": 3}
    host = TorchLanguageModel.open(folders("llama"), **words)
    before = host.forward(batch_of(), [host.parameters])
    host.parameters["model.norm.weight"][:] = 0.5
    expected = passes(host, batch_of())
    assert not np.allclose(before, expected["at points"])
    with on_card(monkeypatch):
        runtime = TorchLanguageModel.open(folders("llama"), device="cuda", **words)
        runtime.parameters["model.norm.weight"][:] = 0.5
        assert_same(passes(runtime, batch_of()), expected)


def test_dropout_draws_the_same_on_a_card(folders, monkeypatch):
    batch = {**batch_of(), "dropout": np.array([5, 6])}
    words = {"quant": "none", "threads": 1, "seed": 3, "attention": "eager"}
    folder = folders("gpt2")
    expected = passes(TorchLanguageModel.open(folder, **words), batch)
    with on_card(monkeypatch):
        runtime = TorchLanguageModel.open(folder, device="cuda", **words)
        assert_same(passes(runtime, batch), expected)


def test_documents_of_a_row_stay_apart_on_a_card(folders, monkeypatch):
    batch = {**batch_of(), "document": np.array([[0] * 5 + [1] * 7] * 2, np.int32)}
    assert_an_adapter_is_the_same_on_a_card(monkeypatch, folders("llama"), "lora", batch)


def test_the_stand_in_finds_a_tensor_of_the_host():
    """What the other tests rest on."""
    with StandInCard():
        there = torch.ones(2, 2, device=CARD)
        with pytest.raises(MixedDevices, match="of the host"):
            there + torch.ones(2, 2)
        with pytest.raises(RuntimeError):
            there.numpy()
        np.testing.assert_array_equal((there @ there).cpu().numpy(), np.full((2, 2), 2.0))


def test_a_cap_limits_what_torch_takes_of_a_card(folders, monkeypatch):
    """And more than that is out of memory by torch's own allocator."""
    cuda = FakeCuda().install(monkeypatch)
    folder = folders("llama")
    words = {"quant": "none", "threads": 1, "seed": 3, "device": "cuda", "cap_bytes": 2 * 10**9}
    for start in (
        lambda: TorchLanguageModel.open(folder, **words),
        lambda: AdaptedLanguageModel.open(folder, adapter_of(folder, "lora"), **words),
    ):
        with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):  # there is none
            start()
    kernels = card_memory._KERNEL_BYTES  # off the cap, as what the driver counts beside would be
    assert cuda.shares == [pytest.approx((2 * 10**9 - kernels) / (8 * 10**9))] * 2


def test_a_card_that_is_not_there_is_one_sentence(folders, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"'cuda' was asked for.*use --device cpu"):
        TorchLanguageModel.open(folders("llama"), quant="none", threads=1, seed=0, device="cuda")


def test_on_the_host_nothing_counts_as_held_on_a_card(folders):
    runtime = TorchLanguageModel.open(folders("llama"), quant="none", threads=1, seed=0)
    assert (runtime.device, runtime.device_bytes()) == ("cpu", 0)
    assert card.CardMemory(card.HOST).peak_bytes() == 0
