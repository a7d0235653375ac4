"""Chats whose answers are a few fixed ones: which these are, and what a cut one is."""

import json

import numpy as np
import pytest
from gguf_models import plain_llama
from tables import write_table

from edge_train.errors import InputError
from edge_train.tasks import open_job
from edge_train.tasks.language_model.labels import answers_in
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

END = 9
LENGTH = 24


def answers_of(*answers, shortened=()):
    """The answers of chats of one token and an answer each."""
    ids, starts, counted = [], [0], []
    for answer in answers:
        counted.append((len(ids) + 1, len(ids) + 1 + len(answer)))
        ids += (0, *answer)
        starts.append(len(ids))
    return answers_in(np.array(ids), np.array(starts), np.array(counted), "t.jsonl", shortened)


def test_a_cut_answer_that_another_begins_with_is_no_answer_of_its_own():
    found = answers_of((5, END), (4, END), (5,), (5,), shortened=(2, 3))
    assert found.firsts == {4: (4, END), 5: (5, END)} and found.cut == 2


def test_a_cut_answer_that_no_other_begins_with_is_one():
    found = answers_of((5,), (4, END), (5,), shortened=(0, 2))
    assert found.firsts == {4: (4, END), 5: (5,)} and found.cut == 0


def test_a_whole_answer_that_another_begins_with_is_refused():
    with pytest.raises(InputError, match="3 answers begin with 2"):
        answers_of((5, END), (4, END), (5,))
    with pytest.raises(InputError, match="3 answers begin with 2"):
        answers_of((5, END), (4, END), (5,), (5,), shortened=(3,))


def test_answers_that_are_no_beginnings_of_each_other_are_refused_though_one_is_cut():
    with pytest.raises(InputError, match="2 answers begin with 1"):
        answers_of((5, 6, END), (5, 7), shortened=(1,))


def test_data_with_a_chat_that_is_cut_in_its_answer_are_taken_and_it_is_said(tmp_path):
    """The whole data were refused: `3 answers begin with 2`."""
    changes = {"llama__context_length": 64, "tokenizer__chat_template": None}
    (tmp_path / "model.gguf").write_bytes(plain_llama(**changes))
    pairs = [{"prompt": "an inn", "completion": ("tin", "hat")[n % 2]} for n in range(20)]
    job, out = prepared(tmp_path, pairs)
    before = json.loads((out / "tokens.json").read_text())["answers"]
    assert not any("answer" in note for note in job.notes)
    tokenizer = job._model.tokenizer()

    def tokens(row):
        text = f"{row['prompt']}\n{row['completion']}"
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    prompts = ("a" + " the" * n + " a" * m for n in range(LENGTH) for m in range(8))
    long = ({"prompt": prompt, "completion": "tin"} for prompt in prompts)
    row = next(one for one in long if tokens(one) == LENGTH + 1)  # and the end token
    job, out = prepared(tmp_path, [*pairs, row])
    assert json.loads((out / "tokens.json").read_text())["answers"] == before
    said = "1 of 21 prompts with completions keep only the beginning of their answer"
    assert any(said in note for note in job.notes)


def prepared(folder, rows):
    data = write_table(folder / "t.jsonl", rows)
    own = {"length": LENGTH, "samples": 2, "runtime": "numpy", "loss_on": "labels"}
    job = open_job(LanguageModelRecipe(model=str(folder / "model.gguf"), data=str(data), **own))
    job.load()
    (out := folder / "run").mkdir(exist_ok=True)
    job.prepare(out, [].append)
    return job, out
