"""Adapters on torch: losses and gradients as peft has them, on any base, whatever shares a row."""

import warnings

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import transformers
from torch import nn

from edge_train.formats.adapter import Adapter, write_adapter
from edge_train.formats.language_folder import open_language_model
from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel, linear_layers

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
