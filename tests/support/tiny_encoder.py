"""A text encoder of a table of random rows as an ONNX graph, and notes to search; no torch."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from edge_train.formats.onnx_writer import GraphWriter

WORDS = (
    *("bread", "dough", "flour", "oven", "yeast", "bike", "tyre", "chain", "brake", "wheel"),
    *("tomato", "soil", "frost", "seed", "leaf", "tax", "form", "bank", "rent", "letter"),
    *("the", "a", "and", "of", "in", "with", "how", "to", "is", "old", "new", "good"),
)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def make_encoder(folder: Path, width: int = 16, seed: int = 0) -> Path:
    """Write config.json, tokenizer.json and model.onnx: a token's row is its hidden value."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [*_SPECIAL, *WORDS]
    tokenizer = Tokenizer(WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert",
        "vocab_size": len(names),
        "max_position_embeddings": 64,
        "hidden_size": width,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    graph = GraphWriter()
    rows = np.random.default_rng(seed).standard_normal((len(names), width)).astype(np.float32)
    table = graph.weight("table", rows)
    ids = graph.input("input_ids", ("texts", "tokens"), "int64")
    graph.input("attention_mask", ("texts", "tokens"), "int64")
    graph.node("Gather", [table, ids], ["last_hidden_state"])
    graph.output("last_hidden_state", ("texts", "tokens", width))
    (folder / "model.onnx").write_bytes(graph.content())
    return folder


def make_notes(folder: Path, count: int = 24, seed: int = 0) -> Path:
    """Write notes on four subjects; a title has two words of its subject, the text others."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for number in range(count):
        own = draw.permutation(WORDS[number % 4 * 5 : number % 4 * 5 + 5])
        rest = draw.choice(WORDS[20:], 6)
        body = " ".join(draw.permutation([*own[2:], *rest, own[0]]))
        (folder / f"note{number:02}.md").write_text(f"# {own[0]} {own[1]} {rest[0]}\n{body}.\n")
    return folder


def make_judged(folder: Path) -> Path:
    """Write a collection with queries and judgements, as BEIR lays it out."""
    (folder / "qrels").mkdir(parents=True)
    rows = [("1", "bread", "dough and flour"), ("2", "", "tyre of a bike"), ("3", "", " ")]
    rows += [(str(n), f"good {WORDS[n]}", f"{WORDS[n]} in the {WORDS[n + 1]}") for n in (10, 12)]
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": i, "title": t, "text": x}) + "\n" for i, t, x in rows)
    )
    asks = [("a", "how to flour"), ("b", "old tyre"), ("c", "tomato"), ("d", "frost")]
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": i, "text": x}) + "\n" for i, x in asks)
    )
    lines = {"train": "a\t1\t2\nb\t2\t1\nb\t9\t1\n", "dev": "c\t10\t1\n", "test": "d\t12\t3\n"}
    for part, text in lines.items():
        (folder / "qrels" / f"{part}.tsv").write_text("query-id\tcorpus-id\tscore\n" + text)
    return folder
