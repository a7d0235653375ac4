"""An export is a whole artifact or nothing, says what it measured, and loads in old engines."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_train.errors import InputError, ModelError
from edge_train.formats.diffusion_folder import open_model

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from edge_train.formats.artifact import SlopeBasis, open_artifact  # noqa: E402
from edge_train.quant import of_artifacts  # noqa: E402
from edge_train.tasks.personalize import export as exporting  # noqa: E402 - needs torch


def export(name, out, **options) -> None:
    given = {"quant": "int8", "photos": None, "resolution": None, "threads": 1, "say": print}
    exporting.export(str(name), out, **(given | options))


@pytest.mark.parametrize("quant", of_artifacts())
def test_every_profile_opens_and_tells_its_slopes(exported, quant) -> None:
    manifest = open_artifact(exported.artifacts[quant]).manifest
    assert manifest.quant == quant
    assert manifest.origin["model"] == exported.model.name
    place = str(exported.model.parent).encode()
    assert not any(place in p.read_bytes() for p in exported.artifacts[quant].rglob("*.*"))
    assert [row.epsilon for row in manifest.slopes] == sorted(
        row.epsilon for row in manifest.slopes
    )
    assert manifest.safe_epsilon in [row.epsilon for row in manifest.slopes]
    assert manifest.slopes_from == SlopeBasis(8, 8, "gradient")
    assert 0 < manifest.loss_tolerance < 1
    assert manifest.forward_bytes > 0
    assert any("smallest safe radius" in line for line in exported.said[quant])


@pytest.mark.parametrize("quant", ["none", "int8"])
def test_float_activations_keep_small_slopes(exported, quant) -> None:
    manifest = open_artifact(exported.artifacts[quant]).manifest
    assert manifest.slopes[0].correlation > 0.98


@pytest.mark.parametrize("quant", of_artifacts())
def test_graphs_are_readable_by_old_engines(exported, quant) -> None:
    for path in exported.artifacts[quant].glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        assert model.ir_version <= 10
        assert {o.domain: o.version for o in model.opset_import}[""] <= 21
        kinds = {node.op_type for node in model.graph.node}
        assert "ConvInteger" not in kinds
        assert "Softmax" not in kinds, "attention was not fused"


@pytest.mark.parametrize(
    ("quant", "promised", "never"),
    [
        ("none", set(), {"DequantizeLinear", "MatMulInteger", "MatMulNBits"}),
        ("int8", {"DequantizeLinear"}, {"QuantizeLinear", "DynamicQuantizeLinear"}),
        ("int8-fast", {"MatMulInteger", "QuantizeLinear"}, {"MatMulNBits"}),
        ("int4", {"MatMulNBits", "QuantizeLinear"}, set()),
    ],
)
def test_profiles_use_the_arithmetic_they_promise(exported, quant, promised, never) -> None:
    model = onnx.load(exported.artifacts[quant] / "step.onnx", load_external_data=False)
    found = {node.op_type for node in model.graph.node}
    assert promised <= found
    assert not never & found
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            assert {a.name: a.i for a in node.attribute}["accuracy_level"] == 4


@pytest.mark.parametrize("quant", ["int8-fast", "int4"])
def test_no_two_integer_products_leave_sixteen_bits(exported, quant) -> None:
    """So that a processor which adds two of them in 16 bits computes what every other does.

    The two may be any two that a sum runs over: how weights are packed is the engine's affair.
    Of MatMulNBits there is nothing to ask: 2 * 127 * 15 fits, and larger numbers it has none.
    """
    model = onnx.load(exported.artifacts[quant] / "step.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}

    def is_made_by(name: str, kind: str) -> bool:
        return name in makers and makers[name].op_type == kind

    weights: dict[str, list[np.ndarray]] = {"MatMulInteger": [], "Conv": []}
    for node in model.graph.node:
        assert not node.op_type.startswith("QLinear"), "a kind of product that is not looked at"
        if node.op_type == "MatMulInteger":
            assert len(node.input) == 3, "weights have no zero point"
            assert is_made_by(node.input[0], "DynamicQuantizeLinear")
            weights["MatMulInteger"].append(stored[node.input[1]])
        rounded = [user for user in model.graph.node if node.output[0] in user.input]
        if node.op_type == "Conv" and [user.op_type for user in rounded] == ["QuantizeLinear"]:
            assert is_made_by(node.input[0], "DequantizeLinear")
            assert len(makers[node.input[1]].input) == 2, "weights have no zero point"
            weights["Conv"].append(stored[makers[node.input[1]].input[0]])
    for kind, found in weights.items():
        assert found, f"no {kind} was looked at"
        for weight in found:
            assert weight.dtype == np.int8
            assert 2 * 255 * np.abs(weight.astype(int)).max() <= 2**15 - 1


def test_smaller_profiles_are_smaller(exported) -> None:
    sizes = [
        (exported.artifacts[quant] / "step.weights").stat().st_size
        for quant in ("none", "int8", "int4")
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_embedding_rows_are_those_of_the_model(exported) -> None:
    artifact, model = open_artifact(exported.artifacts["int8"]), open_model(exported.model)
    ids = [0, 7, 300]
    np.testing.assert_array_equal(
        artifact.embedding_rows("text_encoder", ids), model.embedding_rows("text_encoder", ids)
    )


def test_an_existing_folder_is_left_alone(exported, tmp_path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="exists already"):
        export(exported.model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_artifact_is_not_exported_again(exported, tmp_path) -> None:
    with pytest.raises(InputError, match="is an artifact already"):
        export(exported.artifacts["int8"], tmp_path / "out")


def test_an_unknown_profile_is_refused(exported, tmp_path) -> None:
    with pytest.raises(InputError, match="quantisation 'int2' is not known; did you mean 'int8'"):
        export(exported.model, tmp_path / "out", quant="int2")


def test_missing_calibration_photos_are_one_sentence(exported, tmp_path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        export(exported.model, tmp_path / "out", photos=str(tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_found_before_the_work(exported, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="the export needs about"):
        export(exported.model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_graphs(monkeypatch):
    """Leave out what takes long, for tests of what comes before and after."""
    monkeypatch.setattr(exporting, "step_graph", lambda *_: None)
    monkeypatch.setattr(exporting, "vae_graphs", lambda *_: (None, None))
    monkeypatch.setattr(exporting, "write_graph", lambda *_: [])


def test_a_disk_that_fills_up_leaves_nothing(exported, tmp_path, monkeypatch, no_graphs) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_embeddings", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        export(exported.model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_that_may_not_grow_leaves_nothing(exported, tmp_path, no_graphs) -> None:
    """A limit of the system stands for a full disk: the same write fails in the same place."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"out: cannot be written \(File too large\)"):
            export(exported.model, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_that_exists_stays_when_the_export_fails(
    exported, tmp_path, monkeypatch, no_graphs
) -> None:
    def broken(*_: object) -> None:
        raise ModelError("the model is damaged")

    monkeypatch.setattr(exporting, "write_embeddings", broken)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="damaged"):
        export(exported.model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_that_cannot_be_written_is_one_sentence(exported, monkeypatch, no_graphs) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10**9))
    with pytest.raises(InputError, match="/proc/out: cannot be written"):
        export(exported.model, Path("/proc/out"))


def test_a_folder_inside_a_file_is_one_sentence(exported, tmp_path, no_graphs) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        export(exported.model, tmp_path / "file" / "out")


def test_an_impossible_name_is_one_sentence(exported, tmp_path) -> None:
    with pytest.raises(InputError, match=r"cannot be made \(File name too long\)"):
        export(exported.model, tmp_path / ("x" * 300))


def test_unreadable_calibration_photos_are_one_sentence(exported, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"photos"):
        export(exported.model, tmp_path / "out", photos=str(tmp_path / "photos"))
    assert not (tmp_path / "out").exists()


def test_an_old_torch_is_one_sentence(exported, tmp_path, monkeypatch) -> None:
    monkeypatch.delattr(torch.onnx, "ops")
    with pytest.raises(InputError, match=r"export needs torch 2\.8 or later, found"):
        export(exported.model, tmp_path / "out")


def test_the_memory_of_a_step_is_measured_in_a_process_without_torch(exported) -> None:
    peak_bytes = exporting._fresh_peak(exported.artifacts["int8"])
    assert 20_000_000 < peak_bytes < 200_000_000  # torch alone takes more
    assert peak_bytes == pytest.approx(
        open_artifact(exported.artifacts["int8"]).manifest.forward_bytes, rel=0.3
    )


def test_a_step_that_cannot_be_taken_is_one_sentence(tmp_path) -> None:
    with pytest.raises(ModelError, match="could not take a step with the exported graph"):
        exporting._fresh_peak(tmp_path)
