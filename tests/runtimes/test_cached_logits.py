"""Logits of the next token with what was read kept: those of reading all of it again.

Held to 1e-4 of the largest: sums of the same numbers in another order, through a few layers.
"""

import numpy as np
import pytest
from gguf_models import make_gguf

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CLOSE = 1e-4
IDS = np.random.default_rng(0).integers(3, 250, 40).tolist()
WORDS = {"vocab_size": 60, "initializer_range": 0.3, "pad_token_id": 0}
STATE = {**WORDS, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
# Kinds with a state that runs along the text, and kinds with attention alone.
RUNNING = {
    "mamba": {**STATE, "state_size": 8},
    "rwkv": {**STATE, "context_length": 64, "attention_hidden_size": 32},
    "recurrent_gemma": {**STATE, "lru_width": 32, "attention_window_size": 8, "head_dim": 8},
    "jamba": {**STATE, "use_mamba_kernels": False, "mamba_d_state": 8, "intermediate_size": 48},
}
ATTENDING = {
    "gpt2": {**WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "bloom": {**WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gpt_neo": {
        **WORDS,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "window_size": 8,
        "attention_types": [[["global", "local"], 1]],
    },
    "phi3": {
        **STATE,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 100.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 20,
        },
    },
}


def network_of(kind):
    import transformers

    config = transformers.AutoConfig.for_model(kind, **{**RUNNING, **ATTENDING}[kind])
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def whole(network, ids):
    with torch.no_grad():
        return network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])  # the last two have windows
def test_texts_that_begin_alike_are_read_once_with_the_same_logits(tmp_path, name):
    from edge_train.runtimes.torch.cached_logits import CachedLogits

    network = make_gguf(tmp_path / "a.gguf", name)
    read = []
    network.register_forward_pre_hook(
        lambda *found: read.append(found[2]["input_ids"].shape[1]), with_kwargs=True
    )
    cached = CachedLogits(network)
    cached.next_logits(IDS[5:9])  # which measures whether this kind can
    other = [*IDS[:12], 7, 8]
    for ids, new in ((IDS[:20], 20), (IDS[:21], 1), (IDS, 19), (other, 2), (IDS[:13], 1)):
        read.clear()
        found = cached.next_logits(ids)
        assert sum(read) == new
        wanted = whole(network, ids)
        assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()


def test_long_texts_are_read_in_pieces(tmp_path, monkeypatch):
    from edge_train.runtimes.torch import cached_logits

    monkeypatch.setattr(cached_logits, "_AT_ONCE", 7)
    network = make_gguf(tmp_path / "a.gguf", "mistral")
    cached = cached_logits.CachedLogits(network)
    cached.next_logits(IDS[:2])
    read = []
    network.register_forward_pre_hook(
        lambda *found: read.append(found[2]["input_ids"].shape[1]), with_kwargs=True
    )
    found = cached.next_logits(IDS)
    assert max(read) == 7
    wanted = whole(network, IDS)
    assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()


@pytest.mark.parametrize("kind", [*RUNNING, *ATTENDING])
@pytest.mark.filterwarnings("ignore")  # kinds say that their fast code is missing
def test_every_kind_has_the_logits_of_reading_all_of_a_text_again(kind):
    """Also after a text that goes on otherwise, and of more tokens than a window or LongRoPE's."""
    from edge_train.runtimes.torch.cached_logits import CachedLogits

    network = network_of(kind)
    ids = [number % 57 + 3 for number in IDS]
    cached = CachedLogits(network)
    for some in (ids[:10], ids[:11], ids[:30], [*ids[:8], *ids[9:20]], ids[:5], ids[:1]):
        wanted = whole(network, some)
        assert np.abs(cached.next_logits(some) - wanted).max() <= CLOSE * np.abs(wanted).max()


@pytest.mark.parametrize("kind", ["mamba", "gpt2"])
def test_a_text_is_read_again_only_by_a_kind_that_cannot_keep_it(kind):
    from edge_train.runtimes.torch.cached_logits import CachedLogits

    network = network_of(kind)
    ids = [number % 57 + 3 for number in IDS]
    cached = CachedLogits(network)
    cached.next_logits(ids[:10])
    read = []
    network.register_forward_pre_hook(
        lambda *found: read.append(found[2]["input_ids"].shape[1]), with_kwargs=True
    )
    cached.next_logits(ids[:11])
    assert read == [11 if kind in RUNNING else 1]


def test_other_weights_are_asked_anew_once_what_was_kept_is_forgotten():
    from edge_train.runtimes.torch.cached_logits import CachedLogits

    network = network_of("gpt2")
    ids = [number % 57 + 3 for number in IDS]
    cached = CachedLogits(network)
    cached.next_logits(ids[:10])
    before = cached.next_logits(ids[:20])
    with torch.no_grad():
        network.transformer.wte.weight.mul_(1.5)
    cached.forget()
    wanted = whole(network, ids[:20])
    assert np.abs(before - wanted).max() > 100 * CLOSE * np.abs(wanted).max()
    assert np.abs(cached.next_logits(ids[:20]) - wanted).max() <= CLOSE * np.abs(wanted).max()
