"""The bench of image heads trains each of them, and reads what it measured before."""

import numpy as np
import pytest

from edge_train.bench.images import _Rows
from edge_train.bench.images_heads import GRID, KINDS, Setting, judged, standardized, trained


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_learns_classes_that_lie_apart(kind):
    draw = np.random.default_rng(0)
    labels = np.resize(np.arange(3), 90)
    features = 2 * draw.standard_normal((3, 12))[labels] + draw.standard_normal((90, 12)) + 5
    known, other = standardized(features[:60], features[60:])
    assert known.mean() == pytest.approx(0, abs=1e-5)
    assert np.square(known).mean() == pytest.approx(1, rel=1e-4)
    setting = Setting(0.03, 0.3)
    engine = trained(kind, setting, known, labels[:60], 3, steps=150, batch=20, seed=1)
    assert judged(engine, other, labels[60:])[1] > 0.9


def test_what_was_measured_is_not_measured_again(tmp_path):
    measured = []

    def measure():
        measured.append(1)
        return {"loss": 0.5}

    for _ in range(2):
        row = _Rows(tmp_path / "rows.jsonl").get(("a", 1, 0.3), measure)
        assert row["loss"] == 0.5
    assert len(measured) == 1
    assert len(GRID) == len({(one.rate, one.decay) for one in GRID})
