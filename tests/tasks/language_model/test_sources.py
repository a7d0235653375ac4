"""Which source a sequence is of: the middle of a window, or the documents that share it."""

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.rng import Key
from edge_train.tasks.language_model.documents import open_texts
from edge_train.tasks.language_model.objective import LanguageModel
from edge_train.tasks.language_model.packing import PackedDocuments


def test_a_window_is_of_the_source_of_its_middle():
    ids = np.arange(1000)  # an id is its own place
    sources = np.array([[0, 1], [300, 0], [800, 1]])
    task = LanguageModel(ids, 10, 7, 4, held=100, sources=sources)
    for step in range(12):
        batch = task.batch(Key(0, step))
        middles = batch["ids"][:, 5]
        wanted = np.where((middles >= 300) & (middles < 800), 0, 1)
        np.testing.assert_array_equal(batch["source"], wanted)
    assert task.source_sizes.tolist() == [50, 39]
    assert "source" not in task.evaluation()


def test_documents_share_a_sequence_with_those_of_their_source_only():
    sizes = np.random.default_rng(0).integers(2, 9, 60)
    starts = np.append(0, np.cumsum(sizes))
    owner = np.arange(60) % 3
    ids = np.repeat(owner, sizes)  # an id is the source of its document
    sources = np.stack([starts[:-1], owner], axis=1)
    task = PackedDocuments(ids, starts, None, 16, 5, 4, sources=sources)
    assert task.source_sizes.sum() == len(task.rows[0])
    for step in range(8):
        batch = task.batch(Key(0, step))
        for row, source in zip(range(5), batch["source"], strict=True):
            assert set(batch["ids"][row, 1:][batch["weight"][row] > 0].tolist()) == {source}


def sources_of(path, asked):
    texts = open_texts(path, None)
    texts.asked = asked
    texts.check()
    return [texts.source for _, begins, _ in texts.documents(texts.train) if begins]


def test_sources_are_files_or_what_a_column_says(tmp_path):
    for name in ("a.txt", "b.md"):
        (tmp_path / name).write_text("some words\n" * 3)
    assert sources_of(tmp_path, "files") == ["a.txt", "b.md"]
    rows = ['{"text": "one", "from": "web"}', '{"text": "two", "from": 7}', '{"text": "three"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    assert sources_of(tmp_path / "rows.jsonl", "from") == ["web", "7", ""]


def test_a_text_has_no_columns_of_sources(tmp_path):
    (tmp_path / "a.txt").write_text("some words\n")
    with pytest.raises(InputError, match="one text without columns, and sources is 'from'"):
        sources_of(tmp_path / "a.txt", "from")
