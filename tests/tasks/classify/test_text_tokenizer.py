"""Token ids are those of transformers, padded and cut to one length."""

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from edge_train.errors import InputError, ModelError
from edge_train.tasks.classify.tokenizer import TextTokenizer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "film", "##s", "!", "e")
TEXTS = ["A good film!", "Films, \u00e9 good", "", "good " * 9]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    return tmp_path


def test_a_word_piece_vocabulary_gives_the_ids_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=7)
    found = TextTokenizer.from_folder(folder, 0, len(WORDS)).encode(TEXTS, 7)
    ids, counts = found.ids, found.counts
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(counts, np.sum(expected["attention_mask"], axis=1))


def test_a_long_text_loses_its_end_and_keeps_the_closing_token(folder):
    tokenizer = TextTokenizer.from_folder(folder, 0, len(WORDS))
    found = tokenizer.encode(["good " * 9, "a"], 5)
    ids, counts = found.ids, found.counts
    assert found.cut == 1
    assert ids.tolist() == [[2, 6, 6, 6, 3], [2, 5, 3, 0, 0]]
    assert counts.tolist() == [5, 3]
    assert tokenizer.longest(["good " * 9, "a"], 128) == 11


def test_of_a_book_the_beginning_tells_the_same_ids(folder):
    tokenizer = TextTokenizer.from_folder(folder, 0, len(WORDS))
    book = "a good film! films e " * 5000
    tokenizer.backend.enable_truncation(12)
    whole = tokenizer.backend.encode(book).ids
    tokenizer.backend.no_truncation()
    found = tokenizer.encode([book, "a " * 500, " " * 5000 + "good"], 12)
    assert found.ids[0].tolist() == whole
    assert found.counts.tolist() == [12, 12, 3]
    assert found.cut == 2
    assert tokenizer.longest([book], 12) > 12


def test_pairs_have_the_ids_and_types_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    pairs = [("a good film", "good"), ("good " * 9, "a film"), ("a", "e " * 9)]
    expected = theirs(
        [one for one, _ in pairs],
        [two for _, two in pairs],
        padding="max_length",
        truncation=True,
        max_length=9,
    )
    found = TextTokenizer.from_folder(folder, 0, len(WORDS)).encode(pairs, 9)
    np.testing.assert_array_equal(found.ids, expected["input_ids"])
    np.testing.assert_array_equal(found.types, expected["token_type_ids"])
    assert found.cut == 2


def test_a_tokenizer_file_is_preferred(folder):
    Tokenizer(WordLevel({"good": 0}, unk_token="good")).save(str(folder / "tokenizer.json"))
    ids = TextTokenizer.from_folder(folder, 9, 20).encode(["good"], 2).ids
    assert ids.tolist() == [[0, 9]]


def test_a_vocabulary_larger_than_the_table_is_refused(folder):
    with pytest.raises(ModelError, match="has 11 tokens, the model's table 5 rows"):
        TextTokenizer.from_folder(folder, 0, 5)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none", "", "no tokenizer.json, no vocab.txt"),
        ("tokenizer.json", "{", "not valid JSON"),
        ("vocab.txt", "a\nb\n[UNK]\n", "no \\[CLS\\]"),
    ],
)
def test_a_broken_tokenizer_is_one_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=sentence):
        TextTokenizer.from_folder(tmp_path, 0, 100)


def test_a_template_that_leaves_no_room_for_a_text_is_one_sentence(folder):
    tokenizer = TextTokenizer.from_folder(folder, 0, len(WORDS))
    with pytest.raises(InputError, match=r"puts 2 tokens around a text.*--length 3 at least"):
        tokenizer.encode(["a good film"], 2)
    assert tokenizer.encode(["a good film"], 3).ids.tolist() == [[2, 5, 3]]
