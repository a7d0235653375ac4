"""A tiny random model of every architecture that `edge_train.formats.architectures` lists."""

import shutil
from pathlib import Path
from typing import Any

VOCABULARY, POSITIONS = 300, 64
END, PAD = 1, 0

# Sizes under the names that configurations give them.
_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
}
_LLAMA = {**_BERT, "num_key_value_heads": 1}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}
_SEQUENCE = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": END,
    "forced_eos_token_id": END,
}
_DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}
_T5 = {**_T5, "num_decoder_layers": 1, "decoder_start_token_id": PAD}
_XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": POSITIONS}
_GEMMA = {**_LLAMA, "head_dim": 16, "query_pre_attn_scalar": 16}
_MOE = {**_LLAMA, "num_experts_per_tok": 2}
_QWEN_MOE = {**_MOE, "num_experts": 3, "moe_intermediate_size": 16, "decoder_sparse_step": 1}

ENCODERS: dict[str, dict[str, Any]] = {
    "albert": {**_BERT, "embedding_size": 16},
    "bart": _SEQUENCE,
    "bert": _BERT,
    "big_bird": {**_BERT, "attention_type": "original_full"},
    "camembert": _BERT,
    "convbert": {**_BERT, "embedding_size": 32, "conv_kernel_size": 3, "head_ratio": 1},
    "deberta": {**_BERT, **_DEBERTA, "max_relative_positions": 16},
    "deberta-v2": {**_BERT, **_DEBERTA, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
    | {"share_att_key": True},
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 48,
        "max_position_embeddings": POSITIONS,
    },
    "electra": {**_BERT, "embedding_size": 16},
    "ernie": _BERT,
    "flaubert": _XLM,
    "fnet": {**_BERT, "tpu_short_seq_length": POSITIONS},
    "funnel": {"block_sizes": [1, 1], "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 48},
    "layoutlm": _BERT,
    "longformer": {**_BERT, "attention_window": 8, "max_position_embeddings": 70},
    "mobilebert": {
        **_BERT,
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "true_hidden_size": 16,
    },
    "modernbert": {**_BERT, "local_attention": 8, "global_attn_every_n_layers": 2},
    "mpnet": _BERT,
    "rembert": {**_BERT, "input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": _BERT,
    "roformer": {**_BERT, "embedding_size": 32},
    "squeezebert": {**_BERT, "embedding_size": 32},
    "t5": _T5,
    "xlm": _XLM,
    "xlm-roberta": _BERT,
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48},
}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "codegen": {**_GPT, "n_head": 4, "rotary_dim": 8, "n_ctx": POSITIONS},
    "cohere": _LLAMA,
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "gemma": {**_LLAMA, "head_dim": 16},
    "gemma2": {**_GEMMA, "sliding_window": 8},
    "gemma3_text": {**_GEMMA, "sliding_window": 8},
    "glm": {**_LLAMA, "head_dim": 16},
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "max_position_embeddings": POSITIONS,
    },
    "gpt_neox": {**_BERT, "rotary_pct": 0.25},
    "gptj": {**_GPT, "rotary_dim": 8},
    "granite": {**_LLAMA, "embedding_multiplier": 2.0, "logits_scaling": 1.5},
    "llama": _LLAMA,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
    "mistral": {**_LLAMA, "sliding_window": 8},
    "mixtral": {**_MOE, "num_local_experts": 3},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": POSITIONS},
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "opt": {**_BERT, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "phi": {**_LLAMA, "partial_rotary_factor": 0.5},
    "phi3": _LLAMA,
    "qwen2": _LLAMA,
    "qwen2_moe": {**_QWEN_MOE, "shared_expert_intermediate_size": 16},
    "qwen3": {**_LLAMA, "head_dim": 16},
    "qwen3_moe": {**_QWEN_MOE, "head_dim": 16},
    "smollm3": _LLAMA,
    "stablelm": _LLAMA,
    "starcoder2": _LLAMA,
    "xglm": {
        "d_model": 32,
        "num_layers": 2,
        "attention_heads": 2,
        "ffn_dim": 48,
        "max_position_embeddings": POSITIONS,
    },
}


def make_model(folder: Path, kind: str, *, classes: int | None = None) -> Any:
    """Write a tiny random model as transformers saves it; return the network.

    Every parameter is drawn, biases and norms too, so that none of them may be lost unseen.

    Args:
      classes: of a classifier; None for a language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    sizes = (LANGUAGE_MODELS if classes is None else ENCODERS)[kind]
    ends = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": PAD}
    more = {} if classes is None else {"num_labels": classes}
    config = AutoConfig.for_model(kind, **{"vocab_size": VOCABULARY, **ends, **sizes, **more})
    task = AutoModelForCausalLM if classes is None else AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = task.from_config(config).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    network.save_pretrained(folder)
    return network


def make_tokenizer(path: Path) -> Path:
    """Write the tokenizer of all tiny models: a word is a token, and the end token ends a text."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    words = {"<pad>": PAD, "</s>": END, "<unk>": 2}
    words |= {f"w{number}": number for number in range(3, VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", END)]
    )
    tokenizer.save(str(path))
    return path


def with_tokenizer(folder: Path, tokenizer: Path) -> Path:
    """Put the tokenizer and the small files of a published model beside its weights."""
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    return folder
