"""Small random decoders of the Llama family in safetensors folders, made without torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from edge_train.formats.adapter import Adapter, Target

VOCABULARY, WIDTH, HEADS, GROUPS, HEAD, INNER, LAYERS = 47, 24, 4, 2, 8, 20, 3
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "head_dim": HEAD,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "tie_word_embeddings": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "phi3": {"sliding_window": 4},
    "gemma2": {
        "sliding_window": 3,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 11,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
}


def write_decoder(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Write a folder, and return its configuration and tensors."""
    config = {**_SIZES, "model_type": kind, **CONFIGS[kind]}
    draw = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCABULARY, WIDTH)
    fused = kind == "phi3"
    wide = (HEADS + 2 * GROUPS) * HEAD
    for layer in range(LAYERS):
        inside = {
            "input_layernorm": (WIDTH,),
            "post_attention_layernorm": (WIDTH,),
            "self_attn.o_proj": (WIDTH, HEADS * HEAD),
            "mlp.down_proj": (WIDTH, INNER),
        }
        if fused:
            inside["self_attn.qkv_proj"] = (wide, WIDTH)
            inside["mlp.gate_up_proj"] = (2 * INNER, WIDTH)
        else:
            inside["self_attn.q_proj"] = (HEADS * HEAD, WIDTH)
            inside["self_attn.k_proj"] = inside["self_attn.v_proj"] = (GROUPS * HEAD, WIDTH)
            inside["mlp.gate_proj"] = inside["mlp.up_proj"] = (INNER, WIDTH)
        if kind == "gemma2":
            inside["pre_feedforward_layernorm"] = (WIDTH,)
            inside["post_feedforward_layernorm"] = (WIDTH,)
        if kind == "qwen3":
            inside["self_attn.q_norm"] = inside["self_attn.k_norm"] = (HEAD,)
        shapes |= {f"model.layers.{layer}.{name}.weight": of for name, of in inside.items()}
        if kind == "qwen2":
            for name in ("q", "k", "v"):
                path = f"model.layers.{layer}.self_attn.{name}_proj"
                shapes[f"{path}.bias"] = shapes[f"{path}.weight"][:1]
    tensors = {
        name: (draw.standard_normal(shape) * (0.3 if len(shape) > 1 else 0.2)).astype(np.float32)
        for name, shape in shapes.items()
    }
    for name, value in tensors.items():
        if name.endswith("norm.weight") and not kind.startswith("gemma"):
            value += 1
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return config, tensors


def adapter_of(
    tensors: dict[str, np.ndarray], kind: str = "lora"
) -> tuple[Adapter, dict[str, np.ndarray]]:
    """Return an adapter beside all linear layers, with numbers in both of its matrices."""
    targets = [
        Target(name.removesuffix(".weight"), *value.shape)
        for name, value in tensors.items()
        if name.endswith("proj.weight")
    ]
    adapter = Adapter(kind, 3, 5.0, tuple(targets))
    draw = np.random.default_rng(3)
    blocks = {
        name: (0.3 * draw.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in adapter.shapes().items()
    }
    return adapter, blocks


def batch_of(length: int = 11, sequences: int = 2) -> dict[str, np.ndarray]:
    """Return sequences of three documents, some of whose tokens do not count."""
    draw = np.random.default_rng(11)
    ids = draw.integers(0, VOCABULARY, (sequences, length + 1))
    weight = draw.uniform(0.05, 0.2, (sequences, length)).astype(np.float32)
    weight[draw.uniform(size=weight.shape) < 0.3] = 0
    document = np.sort(draw.integers(0, 3, (sequences, length))).astype(np.int32)
    return {"ids": ids, "weight": weight, "document": document}
