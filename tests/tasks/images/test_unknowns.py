"""Who is called unknown, who is held out, and what an epoch sees."""

import numpy as np
import pytest

from edge_train.tasks.images.splits import split
from edge_train.tasks.images.unknowns import known_pictures, unit


def test_the_threshold_is_two_deviations_below_how_near_left_out_pictures_are():
    draw = np.random.default_rng(0)
    centers = 3 * draw.standard_normal((3, 16))
    labels = np.repeat(np.arange(3), 5)
    features = (centers[labels] + draw.standard_normal((15, 16))).astype(np.float32)
    pictures = np.arange(15)
    found = known_pictures(lambda some: features[some], pictures, labels, together=4)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    near = [max(rows[i] @ rows[j] for j in range(15) if j != i) for i in range(15)]
    assert found.threshold == pytest.approx(np.mean(near) - 2 * np.std(near), abs=1e-5)
    assert len(found.references) == 15
    far = draw.standard_normal((200, 16)).astype(np.float32)
    assert (found.nearness(far) < found.threshold).mean() > 0.9
    assert (found.nearness(features) >= found.threshold).all()
    np.testing.assert_allclose(found.nearness(features, others=True), near, atol=1e-5)


def test_a_class_of_one_picture_does_not_lower_the_threshold():
    features = np.eye(8, dtype=np.float32)[[0, 0, 1, 1, 7]] + np.float32(0.01)
    labels = np.array([0, 0, 1, 1, 2])
    found = known_pictures(lambda some: features[some], np.arange(5), labels, together=8)
    assert found.threshold > 0.9
    assert len(found.references) == 5  # the picture itself is known


def test_references_of_a_large_class_are_bounded():
    features = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    labels = np.zeros(100, np.int64)
    found = known_pictures(lambda some: features[some], np.arange(100), labels, together=64)
    assert found.references.shape == (32, 4)


def test_rows_of_zeros_are_near_to_nothing():
    assert not unit(np.zeros((1, 4), np.float32)).any()


def test_a_fifth_of_each_class_that_has_four_pictures_is_held_out_and_no_test_picture():
    labels = np.repeat([0, 1, 2], [10, 5, 3])
    test = np.zeros(18, bool)
    test[0] = True
    found = split(labels, test, None)
    assert np.bincount(labels[found.held_out], minlength=3).tolist() == [2, 1, 0]
    assert found.test.tolist() == [0]
    assert sorted([*found.known, *found.test]) == list(range(18))
    again = split(labels, test, None)
    assert again.held_out.tolist() == found.held_out.tolist()
    assert len(split(labels, test, 1).held_out) == 1
