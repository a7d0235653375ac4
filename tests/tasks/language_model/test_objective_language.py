"""Windows of a text: every one once an epoch, the end held out, tokens streamed in pieces."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tables import write_table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing

from edge_train.errors import InputError
from edge_train.rng import Key
from edge_train.tasks.language_model import token_stream
from edge_train.tasks.language_model.documents import open_texts
from edge_train.tasks.language_model.marks import Marks, marks_of
from edge_train.tasks.language_model.objective import LanguageModel
from edge_train.tasks.language_model.token_stream import id_type, read_ids, write_ids

NO_MARKS = Marks()


class Characters:
    """A tokenizer whose ids are code points; it counts the longest text it was given."""

    def __init__(self):
        self.longest = 0

    def encode_batch(self, texts, add_special_tokens):
        assert not add_special_tokens
        self.longest = max(self.longest, *map(len, texts))
        return [SimpleNamespace(ids=[ord(character) for character in text]) for text in texts]


def task_of(count=1000, length=9, samples=4):
    return LanguageModel(np.arange(count, dtype=np.uint16), length, samples, 3)


def test_an_epoch_shows_every_window_once_and_no_held_out_token():
    task = task_of()
    windows = (900 - 9) // 9
    seen = []
    for step in range(windows // 4):
        ids = task.batch(Key(0, step))["ids"]
        assert ids.shape == (4, 10) and ids.dtype == np.int64
        assert (np.diff(ids) == 1).all() and ids.max() < 900
        seen += ids[:, 0].tolist()
    assert len(set(seen)) == len(seen)
    assert len({first % 9 for first in seen}) == 1


def test_epochs_differ_in_order_and_offset_and_a_step_is_always_the_same():
    task = task_of()
    np.testing.assert_array_equal(task.batch(Key(1, 5))["ids"], task.batch(Key(1, 5))["ids"])
    firsts = [task.batch(Key(1, step))["ids"][:, 0] for step in range(0, 400, 25)]
    assert len({int(first) % 9 for first in np.concatenate(firsts)}) > 3


def test_the_evaluation_is_spread_over_the_held_out_end():
    ids = task_of().evaluation()["ids"]
    assert len(ids) == 3 and ids.min() >= 900
    assert ids[-1, 0] > 950


def test_what_chooses_the_best_weights_is_not_what_is_reported_on():
    task = LanguageModel(np.arange(1000, dtype=np.uint16), 9, 4, 16)
    chosen, reported = task.evaluation()["ids"], task.held_out()["ids"]
    assert (len(chosen), len(reported)) == (6, 5) and min(chosen.min(), reported.min()) >= 900
    # a window's last token is the next one's first, which is not predicted there
    assert not set(chosen[:, 1:].ravel()) & set(reported[:, 1:].ravel())


def test_a_run_of_earlier_code_reports_on_all_that_is_held_out():
    task = LanguageModel(np.arange(1000, dtype=np.uint16), 9, 4, 3, halves=False)
    assert len(task.held_out()["ids"]) == 11
    assert task.evaluation()["ids"][:, 0].tolist() == [900, 927, 963]


def test_attention_stays_within_the_documents_of_a_text_and_nothing_is_learned_over_their_ends():
    starts = np.array([0, 4, 11, 12, 500, 930])
    task = LanguageModel(np.arange(1000, dtype=np.uint16), 9, 2, 3, starts=starts)
    batch = task._windows(np.array([2, 495]))
    assert batch["document"].tolist() == [[0] * 2 + [1] * 7, [0] * 5 + [1] * 4]
    assert (batch["weight"] > 0).tolist() == [
        [True, False] + [True] * 6 + [False],
        [True] * 4 + [False] + [True] * 4,
    ]
    assert batch["weight"].sum() == pytest.approx(2)
    assert set(batch["weight"].ravel().tolist()) == {0.0, batch["weight"].max()}
    assert task.scored(batch) == 15
    whole = task_of()
    assert whole.evaluation().keys() == {"ids"} and whole.scored(whole.evaluation()) == 27


def test_a_text_without_room_for_two_windows_is_refused():
    with pytest.raises(InputError, match="needs 100"):
        task_of(count=95)
    task_of(count=100)


def written(path, tmp_path, marks=NO_MARKS, tokenizer=None, piece=100):
    """Return the ids of a file as the characters that they stand for, and what was counted."""
    kind, texts = id_type(300), open_texts(path, None)
    texts.piece_bytes = piece
    counted = write_ids(texts, marks, tokenizer or Characters(), tmp_path / "ids", kind)
    text = "".join(map(chr, read_ids(tmp_path / "ids", kind)))
    assert counted.ids == len(text)
    return text, (counted.held, len(counted.starts))


def test_a_long_text_is_tokenized_in_pieces_without_a_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(token_stream, "_CHARACTERS", 100)
    text = "".join(f"line {number} ö\n" for number in range(500)) + "no end" * 200
    (tmp_path / "text").write_text(text)
    tokenizer = Characters()
    assert written(tmp_path / "text", tmp_path, tokenizer=tokenizer) == (text, (0, 1))
    assert tokenizer.longest <= 200


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_a_text_in_any_coding_is_the_same_text(tmp_path, coding):
    text = "".join(f"line {number} of a café\n" for number in range(100))
    (tmp_path / "text").write_bytes(text.encode(coding))
    assert written(tmp_path / "text", tmp_path)[0] == text


def test_a_text_in_an_older_coding_is_the_same_text_and_said(tmp_path):
    text = "Актёры играют искренне, музыка трогает, концовка заставляет задуматься.\n" * 30
    (tmp_path / "text").write_bytes(text.encode("koi8_r"))
    texts = open_texts(tmp_path / "text", None)
    texts.piece_bytes = 100
    assert "".join(piece for piece, _, _ in texts.documents(texts.train)) == text
    assert "read as KOI8-R (line 1)" in texts.notices[0]


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv", "t.JSONL.gz"])
def test_rows_of_a_table_are_documents_with_the_models_marks_around_each(tmp_path, name):
    texts = ["one", "two\nlines", "long " * 30, "last"]
    write_table(tmp_path / name, [{"id": n, "text": text} for n, text in enumerate(texts)])
    found, counted = written(tmp_path / name, tmp_path, Marks((60,), (62,)), piece=40)
    assert found == "".join(f"<{text}>" for text in texts)
    assert counted == (0, 4)


def test_documents_begin_where_their_first_mark_is(tmp_path, monkeypatch):
    monkeypatch.setattr(token_stream, "_CHARACTERS", 4)  # one after the other
    texts = ["one", "two\nlines", "last"]
    path = write_table(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    marks, kind = Marks((60,), (62,)), id_type(300)
    found = write_ids(open_texts(path, None), marks, Characters(), tmp_path / "ids", kind)
    assert found.starts.tolist() == [0, 5, 16]


def test_a_text_file_begins_with_the_mark_and_has_no_end(tmp_path):
    (tmp_path / "t.txt").write_text("once upon")
    assert written(tmp_path / "t.txt", tmp_path, Marks((60,), (62,)))[0] == "<once upon"


def test_the_dev_file_of_a_folder_is_held_out_and_the_test_file_said(tmp_path):
    for name, text in (("train", "abc"), ("valid", "de"), ("test", "f")):
        write_table(tmp_path / f"{name}.jsonl", [{"text": text}])
    texts = open_texts(tmp_path, None)
    assert any("test.jsonl is not used" in line for line in texts.notices)
    assert written(tmp_path, tmp_path) == ("abcde", (2, 2))
    task = LanguageModel(np.arange(40), 4, 2, 4, held=15)
    assert task.held_out()["ids"].min() >= 25
    assert max(task.batch(Key(0, n))["ids"].max() for n in range(20)) < 25


def test_rows_without_a_text_are_counted_and_said(tmp_path):
    rows = [{"text": "a"}, {"text": ""}, {"text": "b"}, {"text": None}, {"text": "c"}]
    texts = open_texts(write_table(tmp_path / "t.jsonl", rows), None)
    assert [piece for piece, _, _ in texts.documents(texts.train)] == ["a", "b", "c"]
    assert texts.notices == [
        "2 of 5 rows of t.jsonl are left out: line 2 has no text; line 4 has no text"
    ]


@pytest.mark.parametrize(
    ("rows", "column", "sentence"),
    [
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], None, "better and a worse answer"),
        ([{"body_html": "a", "id": 1}], None, "--text-column NAME"),
        ([{"text": "a"}], "words", "no column 'words'"),
    ],
)
def test_a_table_without_texts_is_one_sentence(tmp_path, rows, column, sentence):
    with pytest.raises(InputError, match=sentence):
        open_texts(write_table(tmp_path / "t.jsonl", rows), column).check()


def tokenizer_with(template=None):
    backend = Tokenizer(WordLevel({"a": 0, "<s>": 1, "</s>": 2, "[UNK]": 3}, unk_token="[UNK]"))
    backend.add_special_tokens(["<s>", "</s>"])
    if template:
        ends = [("<s>", 1), ("</s>", 2)]
        backend.post_processor = TemplateProcessing(single=template, special_tokens=ends)
    return backend


@pytest.mark.parametrize(
    ("template", "config", "told", "marks"),
    [
        ("<s> $A", {"eos_token_id": 2}, None, ((1,), (2,))),
        ("<s> $A </s>", {}, None, ((1,), (2,))),
        (None, {"eos_token_id": [2, 3]}, None, ((), (2,))),
        (None, {}, "</s>", ((), (2,))),
        (None, {"eos_token_id": 900}, {"content": "</s>"}, ((), (2,))),
    ],
)
def test_marks_are_those_of_the_template_and_the_end_token(tmp_path, template, config, told, marks):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": told}))
    found = marks_of(tokenizer_with(template), config, tmp_path)
    assert (found.begin, found.end, found.said) == (*marks, "")


def test_a_model_without_an_end_token_is_said(tmp_path):
    assert "names no end token" in marks_of(tokenizer_with(), {}, tmp_path).said
