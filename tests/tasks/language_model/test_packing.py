"""Whole documents in sequences: each once an epoch, apart, weighted to a mean over tokens."""

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.rng import Key
from edge_train.tasks.language_model.packing import PackedDocuments, packed

SIZES = (5, 9, 12, 3, 8, 11, 4, 7, 20, 6, 5, 5)


def task_of(sizes=SIZES, held=None, length=19, samples=2, **more):
    starts = np.cumsum([0, *sizes])
    ids = np.concatenate([np.full(size, n + 1) for n, size in enumerate(sizes)]).astype(np.uint16)
    counted = np.array([(s + n // 2, s + n) for s, n in zip(starts, sizes, strict=False)])
    return PackedDocuments(ids, starts, counted, length, samples, 4, held, **more)


def numbers(batch):
    """Return the documents of a batch: ids say which one they are of."""
    return sorted(n - 1 for row in batch["ids"] for n in np.unique(row) if n)


def test_packing_takes_every_document_once_and_never_more_than_fits():
    sizes = np.random.default_rng(0).integers(2, 41, 500)
    rows = packed(sizes, 64)
    assert sorted(np.concatenate(rows).tolist()) == list(range(500))
    assert max(sizes[row].sum() for row in rows) <= 64
    # a sequence that is half full would have taken another half
    assert sum(sizes[row].sum() < 32 for row in rows) <= 1
    assert len(rows) <= 1.05 * sizes.sum() / 64


@pytest.mark.parametrize("apart", [True, False])
def test_an_epoch_shows_every_document_once_and_epochs_differ_in_order(apart):
    task = task_of(samples=1, apart=apart)
    count = len(task.rows[0])
    epochs = [[task.batch(Key(0, e * count + n)) for n in range(count)] for e in range(3)]
    for epoch in epochs:
        shown = [n for batch in epoch for n in numbers(batch)]
        assert sorted(shown) == task.parts[0].tolist()
    orders = {tuple(map(int, (batch["ids"][0, 0] for batch in epoch))) for epoch in epochs}
    assert len(orders) > 1
    again = task_of(samples=1, apart=apart).batch(Key(0, 1))
    np.testing.assert_array_equal(again["ids"], epochs[0][1]["ids"])


def test_a_batch_says_which_tokens_are_of_one_document_and_which_are_learned():
    task = task_of((3, 4, 2, 2, 2), held=2, length=9)
    batch = task._batch([np.array([1, 0]), np.array([2])])
    assert batch["ids"].tolist() == [[2, 2, 2, 2, 1, 1, 1, 0, 0, 0], [3, 3] + [0] * 8]
    assert batch["document"].tolist() == [[0] * 4 + [1] * 3 + [2] * 2, [0] * 2 + [1] * 7]
    # the second half of each document, predicted from the token before
    learned = [[0, 1, 1, 0, 1, 1, 0, 0, 0], [1] + [0] * 8]
    assert (batch["weight"] > 0).astype(int).tolist() == learned
    assert {key: value.dtype for key, value in batch.items()} == {
        "ids": np.int64,
        "weight": np.float32,
        "document": np.int32,
    }
    assert task.scored(batch) == 5


def test_the_mean_over_sequences_is_the_mean_over_learned_tokens():
    task = task_of()
    for batch in (task.batch(Key(0, 0)), task.evaluation(), task.held_out()):
        weight = batch["weight"]
        assert weight.sum() == pytest.approx(len(weight))
        assert len(np.unique(weight)) == 2
    losses = np.random.default_rng(0).random(weight.shape)
    mean = (losses * weight).sum(axis=1).mean()
    assert mean == pytest.approx(losses[weight > 0].mean())


@pytest.mark.parametrize("held", [None, 4])
def test_documents_that_choose_are_not_those_that_are_reported_on_or_trained_on(held):
    task = task_of(held=held)
    train, choose, report = (set(part.tolist()) for part in task.parts)
    assert not (train & choose or train & report or choose & report)
    assert train | choose | report == set(range(len(SIZES))) and choose and report
    assert set(numbers(task.evaluation())) <= choose and set(numbers(task.held_out())) <= report
    if held:
        assert min(choose | report) == len(SIZES) - held


def test_a_document_as_long_as_a_sequence_is_learned_to_its_end():
    task = task_of((20, 20, 20), length=19)
    batch = task.batch(Key(0, 0))
    assert (batch["weight"][:, 9:] > 0).all() and (batch["ids"] > 0).all()


@pytest.mark.parametrize(
    ("sizes", "held"), [((5, 5), None), ((5,), None), ((5, 5), 2), ((5, 5), 0)], ids=str
)
def test_too_few_documents_are_one_sentence(sizes, held):
    with pytest.raises(InputError, match=rf"the data have {len(sizes)} documents"):
        task_of(sizes, held)


def test_what_is_continued_is_the_beginning_of_a_reported_document_up_to_its_answer():
    task = task_of()
    first = task.opening()
    assert set(first) <= {number + 1 for number in task.parts[2]}
    size = task.sizes[first[0] - 1]
    assert len(first) == size // 2 <= 3 * task.length // 4


def test_a_beginning_of_more_than_half_a_sequence_is_not_cut():
    assert len(task_of(sizes=(24,) * 6, length=23).opening()) == 12


def test_all_tokens_but_the_first_of_each_are_learned_where_nothing_says_which():
    task = task_of()
    whole = PackedDocuments(task.ids, task.starts, None, 19, 2, 4)
    assert whole.counted_tokens == len(task.ids) - len(SIZES)
    batch = whole._batch([np.array([0, 3])])
    assert np.flatnonzero(batch["weight"][0]).tolist() == [0, 1, 2, 3, 5, 6]
