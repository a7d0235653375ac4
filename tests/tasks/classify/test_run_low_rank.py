"""Low-rank methods through the command line: they learn, go on with the same bits, and refuse."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.methods.low_rank import RULES
from edge_train.records import checkpoint, journal

pytest.importorskip("torch")
pytestmark = pytest.mark.process

_RATE = ("--lr", "5e-3")
_SCALES = {"frugal": "0.1"}


def run(classifiers, out, *options, model=None):
    words = ["run", "--task", "classify", "--data", str(classifiers.data), "--threads", "1"]
    words += ["--model", str(model or classifiers.model), "--out", str(out), "--json"]
    words += ["--steps", "80", "--samples", "16", "--evaluate-every", "10"]
    return cli.main([*words, *options])


def report_of(out):
    return json.loads((out / "report.json").read_text())


@pytest.mark.parametrize("method", [*(rule.name for rule in RULES), "adamw8bit"])
def test_every_method_learns_and_goes_on_with_the_same_bits(classifiers, tmp_path, method):
    whole = tmp_path / "whole"
    options = ("--rank", "4", "--refresh-every", "5", "--scale", _SCALES.get(method, "4"))
    options = () if method == "adamw8bit" else options
    assert run(classifiers, whole, "--method", method, *_RATE, *options) == 0
    report = report_of(whole)
    assert (report["status"], report["method"]) == ("done", method)
    assert report["metrics"]["accuracy"] == 1.0
    assert report["eval"]["best"] < 0.1 * report["eval"]["first"]
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    shutil.rmtree(again / "model")
    shutil.rmtree(again / "checkpoints")
    (again / "checkpoints").mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:44]))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    expected = load_file(whole / "model" / "model.safetensors")
    for name, value in load_file(again / "model" / "model.safetensors").items():
        np.testing.assert_array_equal(value, expected[name])


def test_the_basis_of_every_layer_is_measured_and_written_down(classifiers, tmp_path, capsys):
    out = tmp_path / "run"
    options = ("--method", "q-galore", "--basis", "auto", "--rank", "4", "--refresh-every", "5")
    assert run(classifiers, out, *options, *_RATE, "--scale", "4") == 0
    assert report_of(out)["eval"]["best"] < 0.1 * report_of(out)["eval"]["first"]
    records, _ = journal.read(out / "journal.jsonl")
    [event] = [r for r in records if "bases" in r]
    assert "bases by what they keep of a gradient" in capsys.readouterr().out
    layers = [name for name in event["bases"] if "layer" in name]
    assert layers and "bert.embeddings.word_embeddings.weight" not in event["bases"]
    for name in layers:
        row = event["bases"][name]
        assert row["basis"] in ("columns", "dct", "svd")
        assert 0 < row["columns"] <= 1 and 0 < row["dct"] <= 1
        assert row[row["basis"]] >= 0.95 * row["svd"] - 1e-3  # written with four digits


def test_a_checkpoint_holds_the_small_state_of_the_paper(classifiers, tmp_path):
    options = ("--method", "q-galore", "--rank", "4")
    assert run(classifiers, tmp_path / "run", *options) == 0
    [*_, newest] = sorted((tmp_path / "run" / "checkpoints").iterdir())
    state = checkpoint.load(newest).state
    layer = state["bert.encoder.layer.0.output.dense.weight"]
    assert layer["0.basis.codes"].shape == (4, 16)  # 32 values in 16 bytes
    assert "0.basis.codes" not in state["bert.embeddings.word_embeddings.weight"]


def test_a_training_artifact_is_trained_by_the_same_rules(classifiers, tmp_path):
    options = ("--method", "galore", "--rank", "4", *_RATE)
    losses = []
    for name, model in (("torch", classifiers.model), ("ort", classifiers.artifact)):
        assert run(classifiers, tmp_path / name, *options, model=model) == 0
        losses.append(report_of(tmp_path / name)["eval"]["best"])
    assert max(losses) < 0.05


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--method", "galore", "--rank", "32"), "use a --rank of at most 31"),
        (("--method", "gradnormlorp", "--rank", "32"), "use a --rank of at most 31"),
        (("--method", "galore", "--trainable", "head"), "trainable 'head' trains none of them"),
        (("--method", "adamw", "--rank", "4"), "rank is not read by method 'adamw'"),
        (("--scale", "4"), "scale is not read by method 'backprop'"),
        (("--method", "apollo", "--basis", "dct"), "only by galore, q-galore"),
        (("--method", "galore", "--basis", "random"), "choose one of svd, dct, columns, auto"),
        (("--method", "galore", "--rank", "0"), "rank is 0, must be from 1"),
        (("--method", "galor"), "method 'galor' is not known; did you mean 'galore'"),
    ],
)
def test_what_cannot_be_projected_is_one_sentence(classifiers, tmp_path, capsys, options, sentence):
    assert run(classifiers, tmp_path / "run", *options) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_a_word_is_not_learned_by_projection(capsys):
    assert cli.main(["run", "--method", "galore"]) == 2
    assert (
        "method 'galore' is not for task 'personalize', only backprop, adamw, zo"
        in capsys.readouterr().err
    )
