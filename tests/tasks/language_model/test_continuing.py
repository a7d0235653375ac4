"""The same beginning is continued before and after, never past what the model reads at once."""

import numpy as np
import pytest
import tokenizers

from edge_train.tasks.language_model.continuing import write_continuation
from edge_train.tasks.language_model.objective import LanguageModel


class Counting:
    """Writes the next number, and remembers the longest text it was given."""

    longest = 0

    def __init__(self):
        self.did = []

    def next_logits(self, ids):
        self.did.append("wrote")
        self.longest = max(self.longest, len(ids))
        return np.eye(50, dtype=np.float32)[(ids[-1] + 1) % 50]

    def forget(self):
        self.did.append("forgot")


def parts(length):
    ids = np.arange(2000, dtype=np.uint16) % 50
    task = LanguageModel(ids, length=length, samples=2, evaluation_samples=2)
    words = {f"w{number}": number for number in range(50)}
    model = tokenizers.models.WordLevel(words, unk_token="w0")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return task, tokenizer


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_what_is_written_follows_the_beginning_and_fits_the_model(tmp_path, length):
    task, tokenizer = parts(length)
    (tmp_path / "samples").mkdir()
    writer = Counting()
    write_continuation(tmp_path, "before", task, tokenizer, writer)
    words = (tmp_path / "samples" / "before-01.txt").read_text().split()
    first = task.opening()
    expected = [f"w{(first[-1] + 1 + place) % 50}" for place in range(len(words))]
    assert words == expected
    assert writer.longest < max(length, 2)
    assert length == 1 or words


def test_what_ends_an_answer_ends_the_writing_and_costs_no_more_passes(tmp_path):
    task, tokenizer = parts(64)
    (tmp_path / "samples").mkdir()
    writer, last = Counting(), task.opening()[-1]
    write_continuation(tmp_path, "before", task, tokenizer, writer, ends={(last + 3) % 50})
    words = (tmp_path / "samples" / "before-01.txt").read_text().split()
    assert words == [f"w{(last + 1) % 50}", f"w{(last + 2) % 50}"]
    assert writer.did.count("wrote") == 3


def test_nothing_is_kept_from_other_weights_or_for_training(tmp_path):
    task, tokenizer = parts(64)
    (tmp_path / "samples").mkdir()
    writer = Counting()
    write_continuation(tmp_path, "before", task, tokenizer, writer)
    assert writer.did[0] == writer.did[-1] == "forgot"
    assert "wrote" in writer.did


def test_the_beginning_is_of_the_held_out_text():
    task, _ = parts(64)
    assert task.opening() == task.held_out(1)["ids"][0][:16].tolist()
