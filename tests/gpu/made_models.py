"""Tiny models and texts for the checks, with random weights; made without a network."""

from pathlib import Path
from typing import Any

import byte_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 300,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def language(root: Path) -> tuple[Path, Path]:
    """Return a model folder of the Llama family, and a text."""
    import torch
    import transformers

    text, model = root / "text.txt", root / "model"
    text.write_text("the cat sat on the mat and the dog sat on the cat\n" * 400)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    network.save_pretrained(model)
    byte_tokenizer.save_byte_tokenizer(model, text)
    return model, text


def classifier(root: Path) -> tuple[Path, Path]:
    """Return a model folder of the BERT family, and labeled texts."""
    from classifiers import make_data, make_tiny_classifier

    data = make_data(root / "texts")
    return make_tiny_classifier(root / "classifier", data), data
