"""Whole runs on the stand-in of a card: plan, steps, checkpoints and what is left behind."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from classifiers import make_data, make_tiny_classifier
from safetensors.numpy import load_file
from stand_in_card import CARD, on_card

from edge_train import cli
from edge_train.runtimes.torch import classifier, lora
from edge_train.tasks.classify import job

SAME = 1e-3  # of a weight: ten steps of AdamW, whose first are signs of gradients


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    data = make_data(root / "data", 24)
    return make_tiny_classifier(root / "model", data), data


def run(place, out, *more):
    model, data = place
    words = ["run", "--task", "classify", "--data", data, "--model", model, "--out", out, "--json"]
    words = [str(word) for word in (*words, "--steps", "3", "--threads", "1", *more)]
    assert cli.main(words) == 0
    return json.loads((out / "report.json").read_text())


@pytest.mark.parametrize(
    "options", [("--method", "adamw"), ("--method", "galore", "--rank", "4"), ("--method", "lora")]
)
def test_a_classifier_ends_on_a_card_as_on_the_host(place, tmp_path, monkeypatch, options):
    expected = run(place, tmp_path / "host", *options, "--device", "cpu")
    assert expected["device"] == "cpu"
    monkeypatch.setattr(job, "place_of", lambda *_: ("cuda", "float32", ""))
    with on_card(monkeypatch, classifier, lora, calls=500):
        found = run(place, tmp_path / "card", *options, "--device", "cuda")
    assert found["device"] == CARD.type
    assert found["eval"]["last"] == pytest.approx(expected["eval"]["last"], rel=SAME)
    ours, theirs = (
        load_file(tmp_path / one / "model" / "model.safetensors") for one in ("card", "host")
    )
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        most = SAME * max(float(np.abs(value).max()), 1.0)
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=most, err_msg=name)
