"""The frozen encoder: transformers' own values in torch, the same from its graph."""

import json

import numpy as np
import pytest

from edge_train import cli
from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.encoder_folder import open_encoder
from edge_train.runtimes.torch.encoder import TorchEncoder

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tiny_encoder import WORDS, make_notes  # noqa: E402

from edge_train.bench.small_classifier import make_classifier  # noqa: E402
from edge_train.runtimes.onnx.encoder import OnnxEncoder  # noqa: E402

IDS = np.array([[2, 9, 8, 7, 3], [2, 11, 3, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return make_classifier(folder, list(WORDS), layers=1, width=32, vocabulary=80, positions=48)


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("graphs") / "graph"
    assert cli.main(["export", str(model), str(out), "--for", "retrieve", "--threads", "1"]) == 0
    return out


def test_the_torch_encoder_gives_transformers_values(model):
    from transformers import AutoModel

    with torch.no_grad():
        given = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
        wanted = AutoModel.from_pretrained(model).eval()(**given).last_hidden_state.numpy()
    encoder = TorchEncoder(open_classifier(model), threads=1)
    found = encoder.hidden(IDS, MASK)
    np.testing.assert_allclose(found[MASK > 0], wanted[MASK > 0], atol=1e-5)  # the same products
    alone = encoder.hidden(IDS[1:, :3], MASK[1:, :3])
    np.testing.assert_allclose(alone[0], found[1, :3], atol=1e-5)  # padding changes nothing


def test_an_exported_graph_gives_the_same_for_any_number_and_length_of_texts(model, graph):
    folder = open_encoder(graph)
    assert folder.graph is not None
    assert not folder.weights
    exact = TorchEncoder(open_classifier(model), threads=1)
    other = OnnxEncoder(folder.graph, threads=1)
    for ids, mask in ((IDS, MASK), (IDS[:1, :4], MASK[:1, :4])):
        wanted, found = exact.hidden(ids, mask), other.hidden(ids, mask)
        np.testing.assert_allclose(found[mask > 0], wanted[mask > 0], atol=1e-4)  # other kernels


def test_a_run_on_either_engine_comes_to_the_same_scores(model, graph, tmp_path):
    notes, scores = make_notes(tmp_path / "notes", 24), []
    for name, engine in ((model, "torch"), (graph, "onnx")):
        out = tmp_path / engine
        words = ["run", notes, "--task", "retrieve", "--model", name, "--steps", 4, "--out", out]
        assert cli.main([str(word) for word in (*words, "--samples", 4, "--threads", 1)]) == 0
        report = json.loads((out / "report.json").read_text())
        assert report["runtime"] == engine
        scores.append([report["eval"][part] for part in ("first", "last")])
    np.testing.assert_allclose(scores[0], scores[1], rtol=0.02)  # codes round to either side


def test_an_engine_that_cannot_compute_a_model_says_what_to_type(model, graph, tmp_path, capsys):
    notes = make_notes(tmp_path / "notes", 4)
    for name, engine, said in (
        (model, "onnx", "--for retrieve"),
        (graph, "torch", "--runtime onnx"),
    ):
        words = ["run", notes, "--task", "retrieve", "--model", name, "--runtime", engine]
        assert cli.main([str(word) for word in words]) == 2
        assert said in capsys.readouterr().err
