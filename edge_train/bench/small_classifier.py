"""A small transformer classifier with random weights and a vocabulary of its own, as a folder."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_classifier(
    folder: Path,
    texts: Sequence[str],
    *,
    kind: str = "bert",
    layers: int = 2,
    width: int = 128,
    vocabulary: int = 4000,
    positions: int = 128,
    labels: int = 2,
    seed: int = 0,
) -> Path:
    """Write a sequence classifier in the layout of transformers; return its folder.

    Args:
      texts: what the WordPiece vocabulary is learned from.
      kind: `bert` or `roberta`.
      width: of a token; heads are 32 wide, the inner layer four times as wide.
      seed: of the random weights.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, BertConfig, RobertaConfig

    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=list(_SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    make = {"bert": BertConfig, "roberta": RobertaConfig}[kind]
    config = make(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        intermediate_size=4 * width,
        max_position_embeddings=positions + (1 if kind == "roberta" else 0),
        num_labels=labels,
        pad_token_id=tokenizer.token_to_id("[PAD]"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModelForSequenceClassification.from_config(config)
    network.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
