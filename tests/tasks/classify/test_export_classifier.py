"""A training artifact is whole, compared with torch, and refused where it is not what it says."""

import json
import shutil

import pytest

pytest.importorskip("torch")

from edge_train import cli
from edge_train.errors import InputError, ModelError
from edge_train.formats.training_artifact import is_training_artifact, open_training_artifact
from edge_train.tasks.classify import export as exporting_training
from edge_train.tasks.classify.export import export_training


def test_an_artifact_holds_what_its_specification_names(classifiers):
    manifest = open_training_artifact(classifiers.artifact).manifest
    names = {path.name for path in classifiers.artifact.iterdir()}
    assert names == {"manifest.json", *manifest.files}
    assert names >= {"training_model.onnx", "eval_model.onnx", "optimizer_model.onnx", "checkpoint"}
    assert "bert.embeddings.word_embeddings.weight" in manifest.trainable
    assert not manifest.frozen


def test_the_first_step_was_compared_with_torch(classifiers):
    assert any(line.startswith("compared with torch: loss differs by") for line in classifiers.said)


def test_only_our_own_lines_are_printed(classifiers, tmp_path, capfd):
    words = ["export", str(classifiers.model), str(tmp_path / "out"), "--for", "ort-training"]
    assert cli.main(words) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert [line.split(":")[0] for line in printed.out.splitlines()[:2]] == [
        "exporting the graphs",
        "compared with torch",
    ]


def test_the_graphs_are_what_the_specification_says(classifiers):
    onnx = pytest.importorskip("onnx")
    manifest = open_training_artifact(classifiers.head_artifact).manifest
    assert set(manifest.trainable) == {"classifier.weight", "classifier.bias"}
    for name in ("training_model.onnx", "eval_model.onnx"):
        model = onnx.load(classifiers.head_artifact / name)
        assert model.ir_version == manifest.requires["ir"]
        inputs = {value.name for value in model.graph.input}
        assert {"ids", "mask", "labels", *manifest.trainable, *manifest.frozen} <= inputs
        assert {"loss", "losses", "logits"} <= {value.name for value in model.graph.output}


def test_another_kind_of_encoder_exports_too(classifiers, tmp_path):
    from classifiers import make_tiny_classifier

    make_tiny_classifier(tmp_path / "model", classifiers.data, kind="roberta")
    said = []
    export_training(
        str(tmp_path / "model"), tmp_path / "out", head_only=False, threads=1, say=said.append
    )
    assert is_training_artifact(tmp_path / "out")


def test_a_failed_export_leaves_no_folder_and_no_changed_version(
    classifiers, tmp_path, monkeypatch
):
    import onnx
    from onnxruntime.training import artifacts

    before = onnx.IR_VERSION
    seen = []

    def fail(*_, **__):
        seen.append(onnx.IR_VERSION)
        raise RuntimeError("no gradient builder for it")

    monkeypatch.setattr(artifacts, "generate_artifacts", fail)
    with pytest.raises(ModelError, match=r"cannot differentiate this network \(no gradient"):
        export_training(
            str(classifiers.model), tmp_path / "out", head_only=False, threads=1, say=print
        )
    assert seen == [9] and before == onnx.IR_VERSION
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_computes_something_else_is_refused(classifiers, tmp_path, monkeypatch):
    first_step = exporting_training._first_step

    def off(runtime, batch):
        losses, gradient = first_step(runtime, batch)
        return losses * (1.01 if "Ort" in type(runtime).__name__ else 1), gradient

    monkeypatch.setattr(exporting_training, "_first_step", off)
    with pytest.raises(ModelError, match="more than rounding explains"):
        export_training(
            str(classifiers.model), tmp_path / "out", head_only=True, threads=1, say=print
        )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("tiny-sd", "OUT"), "no gradient for the GroupNorm and Resize in it"),
        (("MODEL", "OUT", "--quant", "int8"), "not for --for ort-training"),
        (("MODEL", "OUT", "--trainable", "tail"), "use all or head"),
        (("MODEL", "MODEL"), "exists already"),
        (("NOWHERE", "OUT"), "no config.json"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(classifiers, tmp_path, capsys, words, sentence):
    place = {
        "MODEL": classifiers.model,
        "OUT": tmp_path / "out",
        "NOWHERE": tmp_path / "nowhere",
    }
    words = [str(place.get(word, word)) for word in words]
    assert cli.main(["export", *words, "--for", "ort-training"]) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message


def test_the_other_export_refuses_what_is_for_training(tmp_path, capsys):
    assert cli.main(["export", "tiny-sd", str(tmp_path / "out"), "--trainable", "all"]) == 2
    assert "--trainable is for --for ort-training" in capsys.readouterr().err


def edit(folder, name, change):
    path = folder / name
    if name == "manifest.json":
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    else:
        path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("weights.safetensors", lambda b: b[:-4] + bytes(4), "has sha256"),
        ("training_model.onnx", lambda b: b[:100], "has 100 bytes, manifest says"),
        ("manifest.json", {"version": 2}, "format version 2 is not known"),
        ("manifest.json", {"format": "other"}, "format is 'other'"),
        ("manifest.json", {"files": 3}, "files is .3., which is of a wrong type"),
        ("manifest.json", {"files": {"../x": {"bytes": 1, "sha256": ""}}}, "outside the folder"),
        ("manifest.json", {"files": {"x": {"bytes": 1, "sha256": ""}}}, "is not listed"),
    ],
)
def test_a_damaged_artifact_is_refused(classifiers, tmp_path, name, change, sentence):
    folder = tmp_path / "copy"
    shutil.copytree(classifiers.artifact, folder)
    edit(folder, name, change)
    with pytest.raises(ModelError, match=sentence):
        open_training_artifact(folder)


def test_an_unknown_key_of_the_same_version_is_ignored(classifiers, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(classifiers.artifact, folder)
    edit(folder, "manifest.json", {"later": 1})
    assert open_training_artifact(folder).labels == ("LABEL_0", "LABEL_1")


def test_errors_name_the_input_that_was_refused(tmp_path):
    with pytest.raises(InputError, match="tiny-sd is a Stable Diffusion model"):
        export_training("tiny-sd", tmp_path / "out", head_only=False, threads=1, say=print)
