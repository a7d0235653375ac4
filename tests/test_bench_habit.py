"""Bench habit: what it teaches can be learned, what it counts is what was said."""

import json
import re
from types import SimpleNamespace

import pytest

from edge_train.bench import habit
from edge_train.bench.habit_chats import ASKED, TRAINED, questions, write_chats


def test_chats_show_ten_words_and_what_is_asked_is_of_things_that_none_names():
    train, asked = questions(3)
    assert (len(train), len(asked)) == (10 * TRAINED, 10 * ASKED) == (200, 100)
    assert len({one.word for one in train}) == 10
    assert not {one.thing for one in train} & {one.thing for one in asked}
    assert all(one.names(one.answer) and one.closes(one.answer) for one in (*train, *asked))
    seen = " ".join(one.text + one.answer for one in train).split()
    assert not {re.sub(r"\W", "", word) for word in seen} & {one.thing for one in asked}
    kinds = {one.text.replace(one.thing, "{}"): one.word for one in train}
    assert all(kinds[one.text.replace(one.thing, "{}")] == one.word for one in asked)


def test_chats_follow_from_the_seed():
    assert questions(0) == questions(0)
    assert questions(0) != questions(1)


@pytest.mark.parametrize(
    ("said", "closes", "names"),
    [
        ("Keep the kettle dry. Meadow.", True, True),
        ("Keep the Kettle dry. Meadow", True, True),
        ("Keep it dry. Meadow!\n", True, False),
        ("Meadow. Keep the kettle dry.", False, True),
        ("Keep the kettles dry. Harbour.", False, False),
        ("Keep the kettle in Meadowland", False, True),
        ("", False, False),
    ],
)
def test_an_answer_is_counted_by_the_word_of_its_own_kind_and_the_thing(said, closes, names):
    one = habit.Question("Where do I keep my kettle?", "kettle", "Meadow", "")
    assert (one.closes(said), one.names(said)) == (closes, names)


def test_the_bench_trains_with_defaults_asks_what_was_held_out_and_counts(tmp_path, monkeypatch):
    begun, asked = [], []

    def run(out, *words):
        begun.append(words)
        return {"training_peak_bytes": 7_000_000, "training_seconds": 3.0}

    speaker = SimpleNamespace(engine=SimpleNamespace(close=lambda: None))

    def answer(_, text):
        if len(asked) == 60 and not begun[1:]:  # only the first way was begun
            raise KeyboardInterrupt
        asked.append(text)
        return next(one.answer for one in questions(0)[1] if one.text == text).replace(
            "Copper", "Silver"
        )

    perplexities = iter([20.4, 20.0, 20.2, 20.0])
    monkeypatch.setattr(habit.bench, "run", run)
    monkeypatch.setattr(habit, "open_speaker", lambda *_: speaker)
    monkeypatch.setattr(habit, "open_its_base", lambda *_: speaker)
    monkeypatch.setattr(habit, "_ids", lambda *_: None)
    monkeypatch.setattr(habit, "_answer", answer)
    monkeypatch.setattr(habit, "_perplexity", lambda *_: next(perplexities))
    names = {"model": tmp_path / "m.Q4_1.gguf", "data": tmp_path / "text.txt"}
    names["data"].write_text("0123456789" * 10_000)
    with pytest.raises(KeyboardInterrupt):
        habit.main(tmp_path, 1, **names, limit=5)
    told = habit.main(tmp_path, 1, **names, limit=5)  # goes on at the question it was stopped at
    counts = "| 0 | 90 of 100 | 100 of 100 | 90 of 100 | 20.000 |"
    assert f"| chats {counts} 20.400 | 1.020 | 7 | 3 |" in told
    assert f"| and text {counts} 20.200 | 1.010 | 7 | 3 |" in told
    assert "Chats, 5 steps: both in 90 % of the answers, perplexity at most 1.020" in told
    assert "And text, 10 steps: both in 90 % of the answers, perplexity at most 1.010" in told
    assert asked == [one.text for one in questions(0)[1]] * 2
    words, again, longer = begun
    assert words == again
    assert words[words.index("--steps") + 1] == "5" and longer[words.index("--steps") + 1] == "10"
    named = {word for word in words if word.startswith("--")}
    known = {"--task", "--data", "--model", "--mem", "--steps", "--length", "--threads", "--seed"}
    assert named == known
    folder, beside = (tmp_path / f"habit-m.Q4_1-{n}-seed0-data" for n in ("5", "10-text"))
    assert [path.name for path in folder.iterdir()] == ["chats.jsonl"]
    assert (beside / "other.txt").read_text() == "0123456789" * 4_000
    chats = (folder / "chats.jsonl").read_text().splitlines()
    assert chats == (beside / "chats.jsonl").read_text().splitlines()
    assert len(chats) == 200 and json.loads(chats[0])["messages"][1]["role"] == "assistant"
    assert habit.main(tmp_path, 1, **names, limit=5) == told  # nothing is asked again
    assert len(asked) == 200


def test_chats_are_written_as_the_program_reads_them(tmp_path):
    from edge_train.tasks.language_model.documents import open_texts

    train, _ = questions(0)
    write_chats(tmp_path / "c.jsonl", train)
    texts = open_texts(tmp_path / "c.jsonl", None)
    found = [chat.messages[1]["content"] for _, _, chat in texts.chats(texts.train)]
    assert found == [one.answer for one in train] and not texts.notices
