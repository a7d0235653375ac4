"""A run on an artifact starts small: no torch, whatever flavor of the engine is installed."""

import pytest
from emulated import natively
from places import GOLDEN

from edge_train.bench.engine_import import before_model
from edge_train.errors import ModelError

pytest.importorskip("onnxruntime")


@natively
def test_nothing_heavy_is_imported_before_the_model_is_loaded() -> None:
    found = before_model(GOLDEN)
    assert found.heavy == ()
    # 69 and 74 MB were measured (ONNX Runtime 1.32.0, Linux); with torch it is above 280 MB.
    assert found.imported_bytes < 80_000_000
    assert found.imported_bytes <= found.ready_bytes < 90_000_000


def test_a_run_that_does_not_come_that_far_is_one_sentence(tmp_path) -> None:
    with pytest.raises(ModelError, match="no graph was opened"):
        before_model(tmp_path)
