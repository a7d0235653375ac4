"""A byte-level BPE of 280 tokens, learned from a text, beside a model for tests."""

from pathlib import Path


def save_byte_tokenizer(model: Path, text: Path) -> None:
    """Write `tokenizer.json` into a model folder."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(text)], trainer)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(model / "tokenizer.json"))
