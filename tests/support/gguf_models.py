"""Tiny random models of every architecture that is read from GGUF, as llama.cpp has them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from gguf_files import F32, Q8_0, gguf_bytes, stored

Stored = tuple[int, tuple[int, ...], bytes]  # a tensor, as `gguf_bytes` takes it
VOCABULARY, POSITIONS, LAYERS, WIDTH, HEADS, GROUPS, HEAD, INNER = 300, 64, 2, 64, 4, 2, 32, 96
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "head_dim": HEAD,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-5,
    "rope_theta": 20_000.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "initializer_range": 0.2,
}
_GEMMA = {"query_pre_attn_scalar": HEAD}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3 |= {"original_max_position_embeddings": 8192}
_SHORT = [1.0 + 0.1 * n for n in range(8)]
_LONG = [1.5 + 0.5 * n for n in range(8)]
# name -> architecture, class of transformers, its settings, metadata beside the sizes
KINDS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", "Llama", {}, {}),
    "llama biased": ("llama", "Llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "llama 3.1": (
        "llama",
        "Llama",
        {"rope_scaling": _LLAMA3, "max_position_embeddings": 131072, "rope_theta": 5e5},
        {},
    ),
    "smollm": ("llama", "Llama", {"tie_word_embeddings": True, "head_dim": WIDTH // HEADS}, {}),
    "llama linear": (
        "llama",
        "Llama",
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "mistral": ("llama", "Mistral", {"sliding_window": 7}, {"attention.sliding_window": 7}),
    "qwen2": ("qwen2", "Qwen2", {"head_dim": WIDTH // HEADS}, {}),
    "qwen2 yarn": (
        "qwen2",
        "Qwen2",
        {
            "head_dim": WIDTH // HEADS,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 16,
        },
    ),
    "qwen3": ("qwen3", "Qwen3", {}, {}),
    "gemma": ("gemma", "Gemma", {}, {}),
    "gemma2": (
        "gemma2",
        "Gemma2",
        {
            **_GEMMA,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 2.0,
            "sliding_window": 5,
        },
        {
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 2.0,
            "attention.sliding_window": 5,
        },
    ),
    "gemma3": (
        "gemma3",
        "Gemma3",
        {
            **_GEMMA,
            "num_hidden_layers": 6,
            "sliding_window": 5,
            "rope_local_base_freq": 10_000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        {
            "attention.sliding_window": 5,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
    "phi3": (
        "phi3",
        "Phi3",
        {"head_dim": WIDTH // HEADS, "sliding_window": 9},
        {"attention.sliding_window": 9},
    ),
    "phi3 without a window": (
        "phi3",
        "Phi3",
        {"head_dim": WIDTH // HEADS, "sliding_window": None},
        {"attention.sliding_window": 0},
    ),
    "phi3 longrope": (
        "phi3",
        "Phi3",
        {
            "head_dim": WIDTH // HEADS,
            "rope_scaling": {
                "rope_type": "longrope",
                "type": "longrope",
                "short_factor": _SHORT,
                "long_factor": _LONG,
            },
            "original_max_position_embeddings": 32,
        },
        {"rope.scaling.original_context_length": 32},
    ),
}
_NAMES = {
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "qkv_proj": "attn_qkv",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "gate_up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def tokenizer(begin: bool = False) -> dict[str, Any]:
    """Return metadata of a byte-level tokenizer with a few merges and two marks."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = ["h e", "Ġ t", "Ġt he", "a n", "i n", "Ġ a"]
    tokens = ["<s>", "</s>", *letters, *(line.replace(" ", "") for line in merges)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3, 3] + [1] * (len(tokens) - 2)),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": begin,
        "tokenizer.chat_template": "{{ messages }}",
    }


def metadata_of(arch: str, settings: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    own = {**_SIZES, **settings}
    found = {
        "embedding_length": own["hidden_size"],
        "block_count": own["num_hidden_layers"],
        "attention.head_count": own["num_attention_heads"],
        "attention.head_count_kv": own["num_key_value_heads"],
        "attention.key_length": own["head_dim"],
        "attention.value_length": own["head_dim"],
        "rope.dimension_count": own["head_dim"],
        "feed_forward_length": own["intermediate_size"],
        "context_length": own["max_position_embeddings"],
        "attention.layer_norm_rms_epsilon": own["rms_norm_eps"],
        "rope.freq_base": float(own["rope_theta"]),
        **more,
    }
    named = {f"{arch}.{key}": of for key, of in found.items()}
    return {"general.architecture": arch, **named, **tokenizer()}


def make_gguf(path: Path, name: str, kind: int = F32) -> Any:
    """Write a random model, and return the network of transformers with the numbers it holds.

    Args:
      kind: how matrices are stored, as `gguf_files` numbers it.
    """
    import torch
    import transformers

    arch, word, settings, more = KINDS[name]
    own = {**_SIZES, **settings}
    config = getattr(transformers, f"{word}{'Text' if word == 'Gemma3' else ''}Config")(**own)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = getattr(transformers, f"{word}ForCausalLM")(config).eval()
    draw = np.random.default_rng(5)
    tensors = {}
    for long, parameter in network.named_parameters():
        *parts, last = long.split(".")
        norms = parts[-1].endswith("norm")
        values = parameter.detach().numpy()
        if values.ndim == 1:
            values += 0.2 * draw.standard_normal(values.shape).astype(np.float32)
        elif kind != F32:
            _, values[:] = stored(values, kind)
        short = _NAMES.get(parts[-1], "output_norm")
        if parts[-1] == "post_attention_layernorm":
            short = "post_attention_norm" if arch in ("gemma2", "gemma3") else "ffn_norm"
        if norms and arch.startswith("gemma"):
            values = (values + 1).astype(np.float32)
        if arch == "llama" and short in ("attn_q", "attn_k"):
            heads = HEADS if short == "attn_q" else GROUPS
            two = values.reshape(heads, 2, own["head_dim"] // 2, *values.shape[1:])
            values = two.swapaxes(1, 2).reshape(values.shape)
        place = f"blk.{parts[2]}.{short}" if "layers" in parts else short
        tensors[f"{place}.{last}"] = stored(values, kind if values.ndim > 1 else F32)[0]
    for factor, numbers in _factors(name, own).items():
        tensors[f"{factor}.weight"] = stored(np.array(numbers, np.float32), F32)[0]
    path.write_bytes(gguf_bytes(metadata_of(arch, settings, more), tensors))
    return network


def _factors(name: str, own: dict[str, Any]) -> dict[str, list[float]]:
    if name == "phi3 longrope":
        return {"rope_factors_short": _SHORT, "rope_factors_long": _LONG}
    if name != "llama 3.1":
        return {}
    found = []  # as the model's publisher computes them
    for n in range(own["head_dim"] // 2):
        wave = 2 * math.pi * own["rope_theta"] ** (2 * n / own["head_dim"])
        if wave < 8192 / 4:
            found.append(1.0)
        elif wave > 8192:
            found.append(8.0)
        else:
            smooth = (8192 / wave - 1) / 3
            found.append(1 / ((1 - smooth) / 8 + smooth))
    return {"rope_freqs": found}


def plain_llama(
    random: bool = False, inner: int = 32, down: Stored | None = None, **changes: Any
) -> bytes:
    """Return a file of one small layer, made without torch.

    Args:
      random: numbers of a model that could learn something; else all are zero.
      inner: outputs of the gates.
      down: what stands for the matrix behind the gates, (32, inner).
      changes: of metadata, with `__` for a point; None takes a key out.
    """
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    sizes |= {"num_key_value_heads": 1, "intermediate_size": inner}
    metadata = metadata_of("llama", sizes, {})
    for name, of in changes.items():
        metadata[name.replace("__", ".")] = of
    shapes = {"token_embd": (VOCABULARY, 32), "output_norm": (32,), "blk.0.attn_norm": (32,)}
    shapes |= {"blk.0.ffn_norm": (32,), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32)}
    shapes |= {"blk.0.attn_output": (32, 32)}
    shapes |= {f"blk.0.{one}": (inner, 32) for one in ("ffn_gate", "ffn_up")}
    shapes |= {"blk.0.ffn_down": (32, inner), "blk.0.attn_v": (16, 32)}
    draw, tensors = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        values = np.zeros(shape, np.float32)
        if random:
            values += 0.2 * draw.standard_normal(shape) if len(shape) > 1 else 1
        tensors[f"{name}.weight"] = stored(values, Q8_0 if len(shape) > 1 else F32)[0]
    if down is not None:
        tensors["blk.0.ffn_down.weight"] = down
    return gguf_bytes({k: v for k, v in metadata.items() if v is not None}, tensors)
