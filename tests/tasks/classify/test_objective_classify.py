"""Batches show every text once an epoch; ids, masks and labels belong together."""

import numpy as np

from edge_train.rng import Key
from edge_train.tasks.classify.objective import ClassifyText, TokenizedTexts, confusion


def texts(count, length=6):
    counts = (np.arange(count) % (length - 2) + 2).astype(np.int32)
    ids = np.where(np.arange(length) < counts[:, None], np.arange(count)[:, None] + 10, 0)
    return TokenizedTexts(ids.astype(np.int32), counts, (np.arange(count) % 3).astype(np.int32))


def task(count=10, samples=4):
    return ClassifyText(texts(count), texts(7), samples=samples, evaluation_samples=5)


def test_a_batch_is_a_pure_function_of_its_key():
    a, b = task().batch(Key(1, 5)), task().batch(Key(1, 5))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert not np.array_equal(a["ids"], task().batch(Key(2, 5))["ids"])


def test_every_epoch_shows_every_text_once_in_another_order():
    batches = [task().batch(Key(0, step))["ids"][:, 0] - 10 for step in range(5)]
    shown = np.concatenate(batches).reshape(2, 10)  # two epochs of ten, in five steps of four
    for epoch in shown:
        assert sorted(epoch.tolist()) == list(range(10))
    assert not np.array_equal(shown[0], shown[1])


def test_a_batch_may_be_larger_than_the_data():
    batch = task(count=3, samples=8).batch(Key(0, 0))
    assert np.bincount(batch["ids"][:, 0] - 10).min() >= 2


def test_masks_and_labels_belong_to_their_ids():
    batch = task().batch(Key(0, 0))
    np.testing.assert_array_equal(batch["mask"], batch["ids"] != 0)
    np.testing.assert_array_equal(batch["labels"], (batch["ids"][:, 0] - 10) % 3)
    assert {value.dtype for value in batch.values()} == {np.dtype(np.int64)}


def test_the_evaluation_batch_never_changes():
    a, b = task().evaluation(), task(samples=2).evaluation()
    np.testing.assert_array_equal(a["ids"], b["ids"])
    assert a["ids"].shape == (5, 6) and len(set(a["ids"][:, 0].tolist())) == 5


def test_texts_survive_storage():
    again = TokenizedTexts.from_tensors("dev", texts(4).tensors("dev"))
    for name, value in texts(4).batch(np.arange(4)).items():
        np.testing.assert_array_equal(again.batch(np.arange(4))[name], value)


def test_a_confusion_matrix_counts_every_text_once():
    table = confusion(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1]), 3)
    assert table.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]
