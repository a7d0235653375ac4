"""Scores and weights of classes, against values that scikit-learn and SciPy document."""

import numpy as np
import pytest

from edge_train.errors import InputError
from edge_train.tasks.class_weights import class_weights
from edge_train.tasks.scores import macro_f1, matthews, pearson, spearman

NAMES = ("no", "yes")


def table(true, found, classes):
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.array(true), np.array(found)), 1)
    return counts


def test_scores_of_classes_are_those_of_scikit_learn():
    # the examples of sklearn.metrics.f1_score and sklearn.metrics.matthews_corrcoef
    assert macro_f1(table([0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1], 3)) == pytest.approx(4 / 15)
    assert matthews(table([1, 1, 1, 0], [1, 0, 1, 1], 2)) == pytest.approx(-1 / 3)


def test_classes_that_are_not_there_count_nothing_and_a_constant_guess_correlates_by_zero():
    assert macro_f1(table([0, 1], [0, 1], 5)) == 1.0
    assert matthews(table([0, 1], [1, 1], 2)) == 0.0
    assert macro_f1(np.zeros((2, 2), np.int64)) == matthews(np.zeros((2, 2), np.int64)) == 0.0


def test_correlations_are_those_of_scipy():
    # the examples of scipy.stats.spearmanr and scipy.stats.pearsonr
    ones, others = np.array([1.0, 2, 3, 4, 5]), np.array([5.0, 6, 7, 8, 7])
    assert spearman(ones, others) == pytest.approx(0.8207826816681233)
    first, second = np.array([1.0, 2, 3, 4, 5, 6, 7]), np.array([10, 9, 2.5, 6, 4, 3, 2])
    assert pearson(first, second) == pytest.approx(-0.828503883588428)
    assert pearson(ones, np.ones(5)) == 0.0


def test_balanced_weights_are_those_of_scikit_learn():
    # the example of sklearn.utils.class_weight.compute_class_weight
    found = class_weights("balanced", np.array([1, 1, 1, 1, 0, 0]), NAMES)
    assert found.tolist() == [1.5, 0.75]
    assert class_weights("1, 2.5", np.array([0, 1]), NAMES).tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    ("text", "says"),
    [("even", "neither"), ("1", "2 classes"), ("-1,1", "0 or more"), ("nan,1", "0 or more")],
)
def test_other_weights_are_refused_in_a_sentence(text, says):
    with pytest.raises(InputError, match=says):
        class_weights(text, np.array([0, 1]), NAMES)
