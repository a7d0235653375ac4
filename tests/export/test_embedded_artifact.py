"""The artifact that comes with the program is what `edge-train export tiny-sd` writes."""

from dataclasses import replace

import numpy as np
import pytest

from edge_train import cli
from edge_train.formats import embedded
from edge_train.formats.artifact import Artifact, open_artifact
from edge_train.formats.embedded import (
    ARTIFACT_FOLDER,
    ARTIFACT_QUANT,
    EMBEDDED,
    MODEL_FOLDER,
    embedded_artifact,
)
from edge_train.formats.hub import find_model

SHIPPED = open_artifact(ARTIFACT_FOLDER)  # compares every file with its hash


def test_it_is_small_and_of_the_embedded_model():
    files = [path for path in ARTIFACT_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert SHIPPED.manifest.origin["model"] == EMBEDDED
    assert SHIPPED.manifest.origin["sha256"] == find_model(EMBEDDED).sha256()
    assert (SHIPPED.manifest.quant, SHIPPED.manifest.products) == (ARTIFACT_QUANT, "uint8 x 7-bit")


@pytest.mark.parametrize(
    ("model", "runtime", "torch", "taken"),
    [
        (EMBEDDED, "auto", True, False),  # a desk learns as it always did
        (EMBEDDED, "torch", True, False),
        (EMBEDDED, "onnx", True, True),
        (EMBEDDED, "auto", False, True),
        (EMBEDDED, "torch", False, False),  # which says how to install it
        (str(MODEL_FOLDER), "auto", False, False),
    ],
)
def test_a_run_takes_it_where_torch_is_not_or_the_engine_is_named(
    monkeypatch, model, runtime, torch, taken
):
    monkeypatch.setattr(embedded, "find_spec", lambda name: object() if torch else None)
    assert embedded_artifact(model, runtime) == (ARTIFACT_FOLDER if taken else None)


def test_an_installation_without_it_takes_none(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "ARTIFACT_FOLDER", tmp_path / "gone")
    assert embedded_artifact(EMBEDDED, "onnx") is None


def tensors(artifact: Artifact) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    for tensor in artifact.manifest.tensors:
        with (artifact.path / tensor.file).open("rb") as file:
            file.seek(tensor.offset)
            values = np.frombuffer(file.read(tensor.bytes), np.dtype(tensor.dtype))
            found[tensor.file, tensor.name] = values
    return found


@pytest.mark.slow
@pytest.mark.process
def test_a_fresh_export_writes_it_again(tmp_path):
    """Same graphs and weights of few bits; ranges of activations come from float kernels.

    Twice on one processor every byte but `forward_bytes` is the same. Kernels of another processor
    differ in the last bits of a float32 sum (1e-6 of an activation), and a range is a maximum of
    such sums: 1e-3 is a thousand of them. A zero point is such a range rounded: one at most. Where
    it is another one, all activations of that tensor round elsewhere, and the safe radius, the root
    of the mean square of what that does to slopes, is that of another draw of the same size: a
    fifth of the mean square is a tenth of the radius, which is then rounded up to two digits.
    """
    pytest.importorskip("torch")
    out = tmp_path / "artifact"
    words = ["export", EMBEDDED, str(out), "--quant", ARTIFACT_QUANT, "--threads", "1"]
    assert cli.main(words) == 0
    fresh = open_artifact(out)
    ours, theirs = tensors(SHIPPED), tensors(fresh)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 500
    for name, values in ours.items():
        if values.dtype == np.float32:
            np.testing.assert_allclose(theirs[name], values, rtol=1e-3, err_msg=str(name))
        elif values.dtype == np.uint8:
            assert np.abs(theirs[name].astype(int) - values.astype(int)).max() <= 1, name
        elif values.dtype == np.int32:  # biases, in units of a range
            np.testing.assert_allclose(theirs[name], values, rtol=1e-3, atol=1, err_msg=str(name))
        else:
            assert np.array_equal(theirs[name], values), name
    measured = {"step.onnx", "step.weights"}  # the graph names ranges, too
    for name, entry in SHIPPED.manifest.files.items():
        assert name in measured or fresh.manifest.files[name] == entry, name
    one, other = SHIPPED.manifest, fresh.manifest
    assert other.origin["sha256"] == one.origin["sha256"]
    another_draw = 0.1 * one.safe_epsilon + 0.01
    assert other.safe_epsilon == pytest.approx(one.safe_epsilon, abs=another_draw)
    assert other.loss_tolerance == pytest.approx(one.loss_tolerance, abs=0.03)
    measured_keys = ("origin", "slopes", "files", "tensors", "forward_bytes", "loss_tolerance")
    measured_keys += ("safe_epsilon",)
    assert replace(other, **{name: getattr(one, name) for name in measured_keys}) == one
