"""The worst mistakes are those of which a classifier was the most certain."""

import numpy as np
from PIL import Image

from edge_train.tasks.mistakes import MOST, merged, record, worst
from edge_train.tasks.network.datasets import Samples
from edge_train.tasks.network.mistakes import shown


def test_wrong_answers_come_by_their_certainty() -> None:
    labels = np.array([0, 1, 0, 1])
    logits = np.array([[0.0, 2.0], [0.0, 9.0], [0.0, 8.0], [1.0, 0.0]])
    found = worst(labels, logits, first_row=10)
    assert [(one.row, one.label, one.found) for one in found] == [
        (12, 0, 1),
        (10, 0, 1),
        (13, 1, 0),
    ]
    np.testing.assert_allclose([one.probability for one in found][1], 1 / (1 + np.exp(-2.0)))


def test_parts_give_the_same_as_the_whole() -> None:
    draw = np.random.default_rng(0)
    labels, logits = draw.integers(0, 3, 90), draw.standard_normal((90, 3))
    parts = merged(worst(labels[:40], logits[:40]), worst(labels[40:], logits[40:], first_row=40))
    assert parts == worst(labels, logits)
    assert len(parts) == MOST


def test_without_mistakes_there_are_none() -> None:
    assert worst(np.array([1]), np.array([[0.0, 1.0]])) == []


def test_logits_of_any_size_have_a_probability() -> None:
    (one,) = worst(np.array([0]), np.array([[-1e30, 1e30]], np.float32))
    assert one.probability == 1.0


def test_a_mistake_in_pictures_is_a_picture_and_one_in_numbers_its_numbers(tmp_path) -> None:
    (tmp_path / "samples").mkdir()
    mistakes = worst(np.array([0]), np.array([[0.0, 1.0]]))
    names = ("cat", "dog")
    gray = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    (found,) = shown(mistakes, Samples(gray, np.array([0])), names, tmp_path)
    assert (found["label"], found["found"]) == ("cat", "dog")
    with Image.open(tmp_path / found["picture"]) as image:
        np.testing.assert_array_equal(np.asarray(image), gray[0, ..., 0])
    rows = Samples(np.arange(20, dtype=np.float32)[None], np.array([0]))
    (found,) = shown(mistakes, rows, names, tmp_path)
    assert found["text"].startswith("0, 1, 2") and found["text"].endswith("11, ...")
    series = Samples(np.zeros((1, 5, 2), np.float32), np.array([0]))
    assert shown(mistakes, series, names, tmp_path) == [record(mistakes[0], names)]
