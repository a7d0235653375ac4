"""Tokenizers in GGUF files: llama.cpp's own ids, on hard strings.

`tests/golden/gguf_tokens.json.gz` holds two small vocabularies, strings, and the ids that llama.cpp
(node-llama-cpp 3.22) gives with every kind of splitting. tests/test_real_model.py compares 1,000
strings with a llama.cpp that is there, of these vocabularies and of a real model's.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from gguf_files import gguf_bytes

from edge_train.errors import ModelError
from edge_train.formats.gguf.file import GgufFile
from edge_train.formats.gguf.tokenizer import SPLITS, settings_of, tokenizer_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "gguf_tokens.json.gz"


@pytest.fixture(scope="module")
def golden():
    return json.loads(gzip.decompress(GOLDEN.read_bytes()))


def file_of(path, **told):
    named = {f"tokenizer.ggml.{key}": of for key, of in told.items()}
    if isinstance(types := told.get("token_type"), list):
        named["tokenizer.ggml.token_type"] = np.array(types)
    (path / "a.gguf").write_bytes(gguf_bytes(named, {}))
    return GgufFile(path / "a.gguf")


def tokenizer_at(path, **told):
    return tokenizer_of(file_of(path, **told), 5000)


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2", "tekken", "gpt-4o", "smollm"])
def test_merges_give_the_ids_of_llama_cpp(golden, tmp_path, name):
    made = tokenizer_at(tmp_path, model="gpt2", pre=name, **golden["bpe"])
    found = [made.encode(one, add_special_tokens=False).ids for one in golden["strings"]]
    assert found == golden["ids"][name]


def test_pieces_around_a_byte_that_is_no_token_are_not_merged(golden, tmp_path):
    """As in llama.cpp; SmolLM2 has no token of some characters of control."""
    tokens = [f"unused {one}" if one in ("Ä", "Ĥ") else one for one in golden["bpe"]["tokens"]]
    made = tokenizer_at(tmp_path, model="gpt2", pre="qwen2", **{**golden["bpe"], "tokens": tokens})
    left, right = made.encode("t").ids, made.encode("h").ids
    assert made.encode("th").ids != left + right
    assert made.encode("t\u0102h").ids == left + right  # its two bytes are Ä and Ĥ


@pytest.mark.parametrize(("name", "prefix"), [("spm", True), ("spm-noprefix", False)])
def test_scores_give_the_ids_of_llama_cpp(golden, tmp_path, name, prefix):
    made = tokenizer_at(tmp_path, model="llama", add_space_prefix=prefix, **golden["spm"])
    found = [made.encode(one, add_special_tokens=False).ids for one in golden["strings"]]
    assert found == golden["ids"][name]
    assert made.decode(made.encode("a é 世界 \u0378").ids) == "a é 世界 \u0378"


def test_every_way_of_splitting_is_one_that_was_compared(golden):
    compared = {SPLITS[name] for name in golden["ids"] if name in SPLITS}
    assert set(SPLITS.values()) == compared


@pytest.mark.parametrize(
    ("model", "told", "first", "last"),
    [
        ("bpe", {"model": "gpt2", "pre": "qwen2"}, False, False),
        ("bpe", {"model": "gpt2", "pre": "llama-bpe"}, True, False),
        ("bpe", {"model": "gpt2", "pre": "llama-bpe", "add_bos_token": False}, False, False),
        ("bpe", {"model": "gpt2", "pre": "qwen2", "add_eos_token": True}, False, True),
        ("spm", {"model": "llama"}, True, False),
        ("spm", {"model": "llama", "add_bos_token": False, "add_eos_token": True}, False, True),
    ],
)
def test_first_and_last_tokens_are_those_that_the_file_asks_for(
    golden, tmp_path, model, told, first, last
):
    made = tokenizer_at(tmp_path, bos_token_id=1, eos_token_id=2, **told, **golden[model])
    ids, bare = made.encode("word").ids, made.encode("word", add_special_tokens=False).ids
    assert ids == [1] * first + bare + [2] * last


def test_the_chat_template_and_tokens_with_a_role_are_kept(golden, tmp_path):
    told = {"model": "gpt2", "pre": "qwen2", "eos_token_id": 2, **golden["bpe"]}
    path = tmp_path / "a.gguf"
    named = {f"tokenizer.ggml.{key}": of for key, of in told.items()}
    path.write_bytes(gguf_bytes({**named, "tokenizer.chat_template": "{{ a }}"}, {}))
    found = settings_of(GgufFile(path))
    assert found["chat_template"] == "{{ a }}"
    both = {"tokenizer.chat_template": "{{ a }}", "tokenizer.chat_template.tool_use": "{{ b }}"}
    path.write_bytes(gguf_bytes({**named, **both}, {}))
    named_templates = settings_of(GgufFile(path))["chat_template"]
    assert [(one["name"], one["template"]) for one in named_templates] == [
        ("default", "{{ a }}"),
        ("tool_use", "{{ b }}"),
    ]
    assert found["eos_token"] == golden["bpe"]["tokens"][2] and "bos_token" not in found


def test_damaged_tokenizers_are_one_sentence(golden, tmp_path):
    bpe, spm = golden["bpe"], golden["spm"]
    whole = {"model": "gpt2", "pre": "qwen2", **bpe}
    wrong = [
        ({}, "its tokenizer is 'None'"),
        ({**whole, "model": "bert"}, "its tokenizer is 'bert'"),
        ({**whole, "pre": "elvish"}, "split into words by 'elvish'"),
        ({**whole, "merges": ["x y"]}, "merges 'x y' to what is no token"),
        ({**whole, "merges": []}, "tokenizer.ggml.merges is missing"),
        ({**whole, "merges": "a b"}, "tokenizer.ggml.merges is missing"),
        ({**whole, "token_type": [1, 1]}, "tokenizer.ggml.token_type is missing or does not fit"),
        ({**whole, "tokens": ["a", "a"]}, "a token is there twice"),
        ({**whole, "tokens": [1, 2]}, "tokenizer.ggml.tokens is missing"),
        ({"model": "llama", **spm, "scores": [1.0]}, "tokenizer.ggml.scores is missing or does"),
        ({"model": "llama", **spm, "tokens": 7}, "tokenizer.ggml.tokens is missing"),
    ]
    for told, says in wrong:
        with pytest.raises(ModelError) as caught:
            tokenizer_at(tmp_path, **told)
        assert says in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="do not belong together"):
        tokenizer_of(file_of(tmp_path, **whole), 10)
