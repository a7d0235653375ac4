"""A folder of notes and chats: every file is read, chats for their answers, notes whole."""

import json

import numpy as np
import pytest
from gguf_models import plain_llama
from tables import write_table

from edge_train.errors import InputError
from edge_train.formats.gguf.model import open_gguf
from edge_train.tasks import open_job
from edge_train.tasks.infer import infer
from edge_train.tasks.language_model.chat_stream import write_chats
from edge_train.tasks.language_model.documents import PIECE_BYTES, open_texts
from edge_train.tasks.language_model.marks import Marks
from edge_train.tasks.language_model.passages import Reader
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LENGTH = 40


def chat(number):
    user = {"role": "user", "content": f"q{number}"}
    return {"messages": [user, {"role": "assistant", "content": f"a{number}"}]}


@pytest.fixture
def folder(tmp_path):
    mine = tmp_path / "mine"
    (mine / "photos").mkdir(parents=True)
    (mine / "a.md").write_text("the hat and the tin\n")
    (mine / "b.txt").write_text("by an inn")
    write_table(mine / "told.jsonl", [chat(number) for number in range(6)])
    return mine


def prepared(folder, said=None, **keys):
    model = folder.parent / "model.gguf"
    changes = {"llama__context_length": 64, "tokenizer__chat_template": TEMPLATE}
    model.write_bytes(plain_llama(**changes))
    own = {"length": LENGTH, "samples": 2, "runtime": "numpy", **keys}
    job = open_job(LanguageModelRecipe(model=str(model), data=str(folder), **own))
    job.load()
    (out := folder.parent / "run").mkdir(exist_ok=True)
    job.prepare(out, (said if said is not None else []).append)
    return job, out


def documents_of(job):
    """Return every document and what of it is learned, as texts."""
    task, tokenizer = job.task(), job._model.tokenizer()

    def text(ids):
        return tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    found = []
    for number in range(len(task.sizes)):
        ids = task.ids[task.starts[number] : task.starts[number + 1]]
        found.append((text(ids), text(ids[task.counts_of(number)])))
    return found


def test_notes_are_learned_whole_and_of_chats_the_answers(folder):
    said = []
    job, _ = prepared(folder, said)
    found = documents_of(job)
    assert found[:6] == [(f"<user>q{n}</s><assistant>a{n}</s>", f"a{n}</s>") for n in range(6)]
    assert [text for text, _ in found[6:]] == ["the hat and the tin\n</s>", "by an inn</s>"]
    # nothing stands before the first token, a letter here, that it could be predicted from
    assert [learned for _, learned in found[6:]] == [text[1:] for text, _ in found[6:]]
    assert "8 notes and chats of" in said[0]


def test_a_note_that_is_longer_than_a_sequence_goes_on_and_none_of_it_is_lost(folder):
    note = "the tin hat in an inn and a hand " * 9
    (folder / "a.md").write_text(note)
    job, _ = prepared(folder)
    tokenizer = job._model.tokenizer()
    whole = [*tokenizer.encode(note, add_special_tokens=False).ids, tokenizer.token_to_id("</s>")]
    task, learned = job.task(), []
    for number in range(6, len(task.sizes) - 1):
        ids = task.ids[task.starts[number] : task.starts[number + 1]]
        assert len(ids) <= LENGTH + 1
        learned += ids[task.counts_of(number)].tolist()
    assert len(whole) > 2 * LENGTH and learned == whole[1:]


LONG = "the tin hat in an inn and a hand\n" * (PIECE_BYTES // 30)


def test_a_note_of_many_pieces_is_one_document_and_every_token_of_it_is_learned_once(folder):
    """Each piece had the model's marks around it, in the middle of the text."""
    (folder / "a.md").write_text(LONG)
    job, _ = prepared(folder)
    task, tokenizer, learned = job.task(), job._model.tokenizer(), []
    for number in range(6, len(task.sizes) - 1):
        ids = task.ids[task.starts[number] : task.starts[number + 1]]
        learned += ids[task.counts_of(number)].tolist()
    whole = [*tokenizer.encode(LONG, add_special_tokens=False).ids, tokenizer.token_to_id("</s>")]
    assert len(LONG) > PIECE_BYTES and learned == whole[1:]


@pytest.mark.parametrize("name", ["a.md", "a.jsonl"])
def test_a_begin_and_an_end_stand_once_around_a_note(tmp_path, name):
    (tmp_path / "mine").mkdir()
    lines = "the hat\nand the tin\nin an inn\n" * 3
    if name == "a.md":
        (tmp_path / "mine" / name).write_text(lines)
    else:
        write_table(tmp_path / "mine" / name, [{"text": lines}, {"text": "a tin"}])
    (tmp_path / "mine" / "b.md").write_text("by an inn")
    (tmp_path / "model.gguf").write_bytes(plain_llama())
    tokenizer = open_gguf(tmp_path / "model.gguf").tokenizer()
    texts, kind = open_texts(tmp_path / "mine", None), np.dtype("<u2")
    texts.piece_bytes = 8
    pieces = [piece for piece, _, _ in texts.documents(texts.train)]
    assert len(pieces) > 5
    passages = Reader(None, "completions", []).all_passages(texts, texts.train)
    marks = Marks((1,), (2,))
    found = write_chats([(passages, False)], marks, tokenizer, tmp_path / "ids", kind, 1000)
    ids = np.fromfile(tmp_path / "ids", kind).tolist()
    many = 2 if name == "a.md" else 3
    assert ids.count(1) == ids.count(2) == many and (ids[0], ids[-1]) == (1, 2)
    # a piece begins with the last token of the one before, which predicts its first
    starts = found.starts.tolist()[:-1]
    parts = [ids[a:b] for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
    joined = [one for part in parts for one in (part if part[0] == 1 else part[1:])]
    own = [tokenizer.encode(one, add_special_tokens=False).ids for one in pieces]
    assert [one for one in joined if one > 2] == [one for some in own for one in some]


def test_a_run_on_notes_that_began_with_marks_around_pieces_goes_on_with_them(folder):
    (folder / "a.md").write_text(LONG)
    job, out = prepared(folder)
    about = json.loads((out / "tokens.json").read_text())
    del about["whole_notes"]
    (out / "tokens.json").write_text(json.dumps(about))
    (out / "tokens.bin").write_bytes(b"damaged!")
    job.restore(out, [].append)
    end = job._model.tokenizer().token_to_id("</s>")
    assert (job.task().ids[job.task().starts[6] :] == end).sum() == 3
    sha256 = job.data_sha256()
    (out / "tokens.bin").write_bytes(b"damaged!")
    job.restore(out, [].append)
    assert job.data_sha256() == sha256


def test_what_is_no_note_and_no_chat_is_named_once_with_its_reason(folder):
    (folder / "empty.md").write_text("")
    (folder / "photo.pdf").write_bytes(b"%PDF")
    write_table(folder / "sums.jsonl", [{"a": 1, "b": 2}])
    job, _ = prepared(folder)
    said = " | ".join(job.notes)
    assert "left aside: photo.pdf (no table or text that is read)" in said
    assert "left aside: photos (a folder inside)" in said
    assert "left aside: empty.md (empty)" in said
    assert "left aside: sums.jsonl (no column of chats or texts)" in said
    assert len(job.task().sizes) == 8


def test_a_folder_of_notes_alone_needs_no_template(folder):
    (folder / "told.jsonl").unlink()
    (folder / "c.md").write_text("an ant")
    model = plain_llama(llama__context_length=64)
    (folder.parent / "model.gguf").write_bytes(model)
    job, _ = prepared(folder)
    assert len(documents_of(job)) == 3


def test_notes_that_were_lost_from_a_run_are_read_again_to_the_same_bits(folder):
    job, out = prepared(folder)
    before = job.data_sha256()
    (out / "tokens.bin").write_bytes(b"damaged!")
    said = []
    job.restore(out, said.append)
    assert "cannot be used" in said[0] and job.data_sha256() == before


def test_parts_of_a_data_set_without_a_training_part_are_no_notes(tmp_path):
    for name in ("dev.jsonl", "test.jsonl"):
        write_table(tmp_path / name, [chat(0)])
    with pytest.raises(InputError, match=r"no train\.tsv"):
        open_texts(tmp_path, None)


def test_files_beside_a_training_part_are_no_notes(folder):
    write_table(folder / "train.jsonl", [chat(0)])
    texts = open_texts(folder, None)
    assert [path.name for path in texts.train] == ["train.jsonl"] and not texts.together


def test_a_folder_with_nothing_in_its_files_starts_nothing(tmp_path):
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"no file in it holds notes or chats"):
        open_texts(tmp_path, None)


def test_a_folder_of_notes_says_its_task_and_a_model_folder_does_not(folder):
    task, what = infer(folder)
    assert (task.name, what) == ("language-model", "2 notes with chats")
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="looks like data of no task"):
        infer(folder)
