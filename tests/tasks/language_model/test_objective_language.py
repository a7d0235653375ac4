"""Windows of a text: every one once an epoch, the end held out, tokens streamed in pieces."""

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.rng import Key
from edge_train.tasks.language_model import token_stream
from edge_train.tasks.language_model.objective import LanguageModel
from edge_train.tasks.language_model.token_stream import check_text, id_type, read_ids, write_ids


class Characters:
    """A tokenizer whose ids are code points; it counts the longest text it was given."""

    def __init__(self):
        self.longest = 0

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        self.longest = max(self.longest, len(text))
        self.ids = [ord(character) for character in text]
        return self


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
    assert len(task_of().held_out()["ids"]) == 11


def test_a_text_without_room_for_two_windows_is_refused():
    with pytest.raises(InputError, match="needs 100"):
        task_of(count=95)
    task_of(count=100)


def test_a_long_text_is_tokenized_in_pieces_without_a_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(token_stream, "_PIECE_BYTES", 100)
    text = "".join(f"line {number} ö\n" for number in range(500)) + "no end" * 200
    (tmp_path / "text").write_text(text)
    tokenizer, kind = Characters(), id_type(300)
    write_ids(tmp_path / "text", tokenizer, tmp_path / "ids", kind)
    assert "".join(map(chr, read_ids(tmp_path / "ids", kind))) == text
    assert tokenizer.longest <= 200


def test_bytes_that_are_no_text_are_found_behind_the_first_piece_too(tmp_path, monkeypatch):
    monkeypatch.setattr(token_stream, "_PIECE_BYTES", 100)
    path = tmp_path / "text"
    path.write_bytes(b"fine\n" * 100 + b"\xff\xfe\n")
    check_text(path)
    with pytest.raises(InputError, match="byte 500 is not UTF-8"):
        write_ids(path, Characters(), tmp_path / "ids", id_type(300))
    assert not (tmp_path / "ids").exists()
