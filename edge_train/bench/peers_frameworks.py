"""The same adapter by litgpt and by torchtune, beside `edge-train bench peers`, where installed.

Each has its own network, LoRA layers and loss in pieces, and does about memory what its
recipe for one device does: torchtune recomputes activations layer by layer, litgpt recomputes none.
Weights come from the GGUF file through its own conversion, start values from the adapter that the
other contestants begin with.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_train.formats.adapter import CONFIG_FILE, TENSORS_FILE
from edge_train.formats.gguf.model import open_gguf
from edge_train.formats.tensor_file import TensorFile

Loss = Callable[[Any], Any]  # of ids of one sequence -> a scalar
# name of a framework -> what has to be importable, how it is installed
FRAMEWORKS: dict[str, tuple[str, str]] = {
    "litgpt": ("litgpt.lora", "pip install litgpt"),
    "torchtune": ("torchtune.models.llama3_2", "pip install torchtune 'torchao<0.14'"),
}
_PIECES = {"litgpt": 128, "torchtune": 8}  # tokens of a piece of the logits; how many pieces


def is_installed(framework: str) -> bool:
    """Return whether a framework can be imported, with all that it needs."""
    try:
        importlib.import_module(FRAMEWORKS[framework][0])
    except ImportError:
        return False
    return True


def open_network(framework: str, model: Path, start: Path, dtype: str) -> tuple[Any, Loss]:
    """Return the network of a framework, its adapter set to start values, and its loss.

    Args:
      model: a GGUF file of the Llama family.
      start: a folder of an adapter beside all linear layers.
      dtype: of weights, adapter and products, a name of torch's.
    """
    import torch

    torch.set_num_threads(1)
    folder = open_gguf(model)
    [file] = folder.files
    kind = getattr(torch, dtype)
    weights = {name: torch.from_numpy(file.read(name)).to(kind) for name in file.entries}
    asked = json.loads((start / CONFIG_FILE).read_text())
    stored = TensorFile(start / TENSORS_FILE)
    begun = {
        name.removeprefix("base_model.model."): torch.from_numpy(stored.read(name))
        for name in stored.entries
    }
    build = {"litgpt": _litgpt, "torchtune": _torchtune}[framework]
    torch.set_default_dtype(kind)
    return build(dict(folder.config), weights, begun, asked["r"], asked["lora_alpha"])


def _litgpt(
    config: dict[str, Any], weights: dict[str, Any], begun: dict[str, Any], rank: int, alpha: float
) -> tuple[Any, Loss]:
    import torch
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from litgpt.utils import chunked_cross_entropy

    layers = config["num_hidden_layers"]
    sizes = Config(
        n_layer=layers,
        n_head=config["num_attention_heads"],
        n_query_groups=config["num_key_value_heads"],
        n_embd=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        padded_vocab_size=config["vocab_size"],
        block_size=config["max_position_embeddings"],
        rotary_percentage=1.0,
        rope_base=int(_rope_base(config)),
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=config["rms_norm_eps"],
        mlp_class_name="LLaMAMLP",
        lora_r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        lora_query=True,
        lora_key=True,
        lora_value=True,
        lora_projection=True,
        lora_mlp=True,
        lora_head=False,
    )
    network: Any = GPT(sizes)
    converted: dict[str, Any] = {}
    copy_weights_hf_llama(sizes, {}, converted, weights)
    network.load_state_dict(converted, strict=False)
    mark_only_lora_as_trainable(network)
    places = {
        "attn.proj": "self_attn.o_proj",
        "mlp.fc_1": "mlp.gate_proj",
        "mlp.fc_2": "mlp.up_proj",
        "mlp.proj": "mlp.down_proj",
    }
    with torch.no_grad():
        for index in range(layers):
            layer, of = network.transformer.h[index], f"model.layers.{index}."
            rows = [begun[f"{of}self_attn.{part}_proj.lora_A.weight"] for part in "qkv"]
            layer.attn.qkv.lora_A.copy_(torch.cat(rows))
            for ours, theirs in places.items():
                layer.get_submodule(ours).lora_A.copy_(begun[f"{of}{theirs}.lora_A.weight"])

    def loss(ids: Any) -> Any:
        logits = network(ids, lm_head_chunk_size=_PIECES["litgpt"])
        logits[-1] = logits[-1][..., :-1, :]
        return chunked_cross_entropy(logits, ids[..., 1:])

    return network, loss


def _torchtune(
    config: dict[str, Any], weights: dict[str, Any], begun: dict[str, Any], rank: int, alpha: float
) -> tuple[Any, Loss]:
    import torch
    from torchtune import modules, training
    from torchtune.models.convert_weights import hf_to_tune
    from torchtune.models.llama3_2._component_builders import lora_llama3_2
    from torchtune.modules.loss import CEWithChunkedOutputLoss
    from torchtune.modules.peft import get_adapter_params, set_trainable_params

    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    groups, width = config["num_key_value_heads"], config["hidden_size"]
    network: Any = lora_llama3_2(
        ["q_proj", "k_proj", "v_proj", "output_proj"],
        apply_lora_to_mlp=True,
        vocab_size=config["vocab_size"],
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=groups,
        embed_dim=width,
        max_seq_len=config["max_position_embeddings"],
        intermediate_dim=config["intermediate_size"],
        norm_eps=config["rms_norm_eps"],
        rope_base=int(_rope_base(config)),
        scale_factor=1,  # positions as they are
        lora_rank=rank,
        lora_alpha=alpha,
        tie_word_embeddings=bool(config["tie_word_embeddings"]),
    )
    set_trainable_params(network, get_adapter_params(network))
    training.set_activation_checkpointing(
        network, auto_wrap_policy={modules.TransformerSelfAttentionLayer}
    )
    network.load_state_dict(hf_to_tune(weights, heads, groups, width), strict=False)
    places = {
        "attn.q_proj": "self_attn.q_proj",
        "attn.k_proj": "self_attn.k_proj",
        "attn.v_proj": "self_attn.v_proj",
        "attn.output_proj": "self_attn.o_proj",
        "mlp.w1": "mlp.gate_proj",
        "mlp.w2": "mlp.down_proj",
        "mlp.w3": "mlp.up_proj",
    }
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("lora_a.weight"):
                _, index, *rest = name.replace("._checkpoint_wrapped_module", "").split(".")
                theirs = places[".".join(rest[:2])]
                parameter.copy_(begun[f"model.layers.{index}.{theirs}.lora_A.weight"])
    criterion = CEWithChunkedOutputLoss(num_output_chunks=_PIECES["torchtune"])
    network.set_num_output_chunks(_PIECES["torchtune"])

    def loss(ids: Any) -> Any:
        nothing = torch.full_like(ids[..., :1], criterion.ignore_index)
        return criterion(network(tokens=ids), torch.hstack([ids[..., 1:], nothing]))

    return network, loss


def _rope_base(config: dict[str, Any]) -> float:
    return float(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
