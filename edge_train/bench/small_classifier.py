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

    tokenizer = Tokenizer(WordPiece(_vocabulary(texts, vocabulary), unk_token="[UNK]"))  # noqa: S106
    tokenizer.add_special_tokens(list(_SPECIAL))
    _reads_words(tokenizer)
    tokenizer.decoder = decoders.WordPiece()
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


def _reads_words(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _vocabulary(texts: Sequence[str], size: int) -> dict[str, int]:
    """Learn a WordPiece vocabulary: the same one from the same texts.

    The trainer numbers letters that go on in a word as it meets them, in an order that changes from
    process to process, and counts that are equal are told apart by those numbers. So they come
    first here, in the alphabet's order, as the special tokens do.
    """
    learner = Tokenizer(WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    _reads_words(learner)
    read = [learner.normalizer.normalize_str(text) for text in texts]
    letters = sorted(set("".join(read)) - {" "})
    first = [*_SPECIAL, *(f"##{letter}" for letter in letters)]
    trainer = WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learned: dict[str, int] = learner.get_vocab()
    return learned
