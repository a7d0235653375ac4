"""Which kinds of models keep the documents of one sequence apart: by attention alone.

Asked by who packs documents, before any library is loaded, and by engines that get them packed.
"""

# Kinds of transformers whose attention was compared: packed documents have the losses that they
# have alone (tests/runtimes/test_torch_documents.py). Others carry something along the sequence
# (Mamba, RWKV), or make their masks or positions without being told of documents (BLOOM, MPT).
_APART = frozenset(
    (
        *("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        *("phi", "phi3", "smollm3", "granite", "olmo", "olmo2", "starcoder2", "stablelm"),
        *("gpt2", "gpt_neox", "cohere", "glm"),
    )
)


def keeps_apart(kind: str | None) -> bool:
    """Return whether attention of a kind of model, its `model_type`, can stay within documents."""
    return kind in _APART
