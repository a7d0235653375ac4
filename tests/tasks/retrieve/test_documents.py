"""What is searched: notes by section, tables by column, collections by judgement."""

import pytest
from tiny_encoder import make_encoder, make_judged, make_notes
from tokenizers import Tokenizer

from edge_train.errors import InputError
from edge_train.tasks.retrieve.accepts import accepts
from edge_train.tasks.retrieve.documents import Columns, Document, read_collection
from edge_train.tasks.retrieve.passages import Reader, passages_of, split
from edge_train.tasks.retrieve.questions import asked_of, asked_of_titles

NONE = Columns()


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = make_encoder(tmp_path_factory.mktemp("encoder"))
    return Reader(Tokenizer.from_file(str(folder / "tokenizer.json")), 12)


def test_notes_are_read_by_section_and_what_is_none_is_said(tmp_path):
    make_notes(tmp_path / "notes", 4)
    (tmp_path / "notes" / "empty.txt").write_text("")
    (tmp_path / "notes" / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "notes" / "copy.md").write_bytes((tmp_path / "notes" / "note01.md").read_bytes())
    (tmp_path / "notes" / "deep").mkdir()
    (tmp_path / "notes" / "deep" / "list.txt").write_text("Old bike\n\nThe chain is new.")
    found = read_collection(tmp_path / "notes", NONE)
    assert len(found.documents) == 5
    assert Document("deep/list.txt", "Old bike", "The chain is new.") in found.documents
    said = "\n".join(found.notices)
    for words in ("empty.txt (empty)", "picture.png (no note", "1 notes are there twice"):
        assert words in said


def test_a_folder_without_notes_or_a_missing_one_is_one_sentence(tmp_path):
    for path, words in ((tmp_path, "no document"), (tmp_path / "nothing", "no such file")):
        with pytest.raises(InputError, match=words):
            read_collection(path, NONE)
    (tmp_path / "blank.md").write_text("# Title\n\n   \n")
    with pytest.raises(InputError, match="no document"):
        read_collection(tmp_path, NONE)


def test_a_table_gives_queries_titles_and_texts_by_their_columns(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("query,title,passage\nflat tyre,Bike,Mend it\nold chain,Bike,Mend it\nx,Y,\n")
    found = read_collection(path, NONE)
    assert [(d.title, d.text) for d in found.documents] == [("Bike", "Mend it")]
    assert [(q.text, dict(q.right)) for q in found.queries["train"]] == [
        ("flat tyre", {0: 1.0}),
        ("old chain", {0: 1.0}),
    ]
    with pytest.raises(InputError, match="no column 'nothing'"):
        read_collection(path, Columns(query="nothing"))
    with pytest.raises(InputError, match="same column"):
        read_collection(path, Columns(text="passage", query="passage"))


def test_a_collection_as_beir_lays_it_out_keeps_its_gains_and_says_what_it_lacks(tmp_path):
    folder = make_judged(tmp_path / "judged")
    assert accepts(folder) == "documents with queries"
    found = read_collection(folder, NONE)
    assert [d.name for d in found.documents] == ["1", "2", "10", "12"]
    assert dict(found.queries["train"][0].right) == {0: 2.0}
    assert dict(found.queries["test"][0].right) == {3: 3.0}
    assert "1 documents of corpus.jsonl are empty" in found.notices[0]
    assert "1 judgements name" in found.notices[1]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nd\t1\tgood\n")
    with pytest.raises(InputError, match="is no number"):
        read_collection(folder, NONE)


def test_passages_are_whole_sentences_that_fit_and_lose_nothing(reader):
    text = "the old bike is good. the new tyre and the chain. " * 6 + "bread " * 40
    parts = list(split(text, reader))
    assert max(reader.count(parts)) <= reader.room
    assert " ".join(parts).split() == text.split()
    assert parts[0].endswith(".")


def test_a_title_that_a_text_repeats_is_taken_out_of_it(reader):
    documents = [Document("1", "old bike", "Old bike the tyre"), Document("2", "rent", "")]
    assert [(p.document, p.text) for p in passages_of(documents, reader)] == [
        (0, "the tyre"),
        (1, "rent"),
    ]


def test_tokens_that_are_compared_are_words_the_model_knows(reader):
    (found,) = reader.read(["bread, and bike!"])
    assert found.offsets == [(0, 5), (7, 10), (11, 15)]
    assert found.unknown == 2  # the signs, which this tokenizer does not know
    (other,) = reader.read(["хлеб 日本"])
    assert other.kept == []
    assert other.unknown == 3  # a word, and two signs that are words each


def test_titles_that_repeat_are_no_queries_and_that_is_said():
    documents = [Document(str(n), "Good notes", f"text {n}") for n in range(5)]
    documents += [Document("a", "", "x"), Document("b", "Old bike", "y")]
    documents += [Document("c", "old bike", "z")]
    found, said = asked_of_titles(documents, dict.fromkeys(range(8), 0))
    assert [(one.words, set(one.right), one.bare) for one in found] == [("Old bike", {6, 7}, True)]
    assert "5 documents share a title" in said[0]


def test_without_a_dev_part_queries_are_held_out_and_never_trained_on(tmp_path):
    found = read_collection(make_notes(tmp_path / "notes", 30), NONE)
    titles = {number: number for number in range(len(found.documents))}
    parts, texts, _ = asked_of(found, "auto", titles, 100)
    assert texts == []
    assert parts["dev"]
    trained = {one.words for one in parts["train"]}
    assert not trained & {one.words for one in parts["dev"]}
