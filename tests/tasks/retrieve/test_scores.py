"""BM25, rankings and their scores are the published formulas, written plainly here."""

import math

import numpy as np
import pytest

from edge_train.tasks.retrieve.bm25 import BM25
from edge_train.tasks.retrieve.scores import interval, ndcg, ranking, recall, reciprocal_rank

TEXTS = ["the old bike", "a bike and a bike chain", "bread", ""]


def reference(query, text, k1=1.2, b=0.75):
    words = [one.split() for one in TEXTS]
    mean = sum(map(len, words)) / len(words)
    total = 0.0
    for word in query.split():
        known = sum(word in some for some in words)
        idf = math.log(1 + (len(words) - known + 0.5) / (known + 0.5))
        f = words[text].count(word)
        total += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(words[text]) / mean))
    return total


@pytest.mark.parametrize("query", ["bike", "old bike chain", "the the bread", "nothing"])
def test_bm25_is_its_formula(query):
    found = BM25(TEXTS).scores(query)
    wanted = [reference(query, text) for text in range(len(TEXTS))]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)  # float32


def test_bm25_finds_nothing_for_words_that_no_text_has():
    assert BM25(TEXTS).best("submarine", 3).tolist() == []
    assert BM25(TEXTS).best("bike", 3).tolist() == [1, 0]


def test_ndcg_discounts_by_rank_and_divides_by_the_best():
    right = {4: 3.0, 7: 1.0}
    wanted = (1 / math.log2(2) + 3 / math.log2(4)) / (3 / math.log2(2) + 1 / math.log2(3))
    assert ndcg([7, 1, 4], right) == pytest.approx(wanted)
    assert ndcg([4, 7], right) == 1.0
    assert ndcg([], right) == 0.0
    assert reciprocal_rank([1, 7], right) == 0.5
    assert recall([1, 7], right) == 0.5


def test_a_document_counts_by_its_best_passage():
    scores = np.array([0.5, 2.0, 1.0, 1.5], np.float32)
    assert ranking(scores, np.array([0, 0, 1, 2], np.int32)) == [0, 2, 1]


def test_an_interval_holds_the_mean_and_is_the_same_each_time():
    values = np.random.default_rng(0).standard_normal(60) + 1
    mean, low, high = interval(values.tolist())
    assert low < mean < high
    assert (mean, low, high) == interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert high - low == pytest.approx(2 * half, rel=0.1)  # the bootstrap's own noise
