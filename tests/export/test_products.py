"""What an export writes as integer products is computed exactly, on whatever processor this is."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from extreme_products import GOLDEN, PROFILES, expected, feeds_for, write

from edge_train.formats.artifact import open_artifact
from edge_train.runtimes.onnx.engine import call, open_session, pick_provider

ARTIFACT = GOLDEN.parent / "artifact-v1"


def check_sums(folder, profile: str, *, lean: bool) -> None:
    session = open_session(
        folder / f"{profile}.onnx",
        pick_provider("cpu", profile),
        threads=1,
        options=open_artifact(ARTIFACT).manifest.engine,
        lean=lean,
    )
    for feeds in feeds_for(profile):
        sums = expected(profile, feeds)
        outputs = call(session, list(sums), feeds)
        for name, output in zip(sums, outputs, strict=True):
            np.testing.assert_array_equal(output, sums[name], err_msg=name)


@pytest.mark.parametrize("lean", [False, True])  # weights packed for speed, or as they lie
@pytest.mark.parametrize("profile", PROFILES)
def test_sums_of_the_most_extreme_products_are_exact(profile, lean) -> None:
    check_sums(GOLDEN, profile, lean=lean)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_golden_products_are_those_an_export_writes(tmp_path, profile) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx_ir")
    write(tmp_path, profile)
    weights = f"{profile}.weights"
    assert (tmp_path / weights).read_bytes() == (GOLDEN / weights).read_bytes()
    ours, golden = (
        onnx.load(folder / f"{profile}.onnx", load_external_data=False).graph
        for folder in (tmp_path, GOLDEN)
    )
    assert list(ours.node) == list(golden.node)
    assert list(ours.initializer) == list(golden.initializer)
    check_sums(tmp_path, profile, lean=False)
