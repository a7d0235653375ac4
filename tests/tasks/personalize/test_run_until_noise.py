"""A run of exact steps ends soon after its gradients are noise, and a killed one just there."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from tiny_models import make_tiny_model

from edge_train import cli
from edge_train.optim.signal import Signal

pytest.importorskip("torch")
pytestmark = pytest.mark.process

NOISE = 9  # steps after which gradients count as noise here


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a run that noise ended: a folder."""
    folder = tmp_path_factory.mktemp("noise")
    (folder / "photos").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    model = make_tiny_model(folder / "sd1", "sd1")
    words = ["run", str(folder / "photos"), "--model", str(model), "--class", "dog"]
    words += ["--method", "backprop", "--threads", "1", "--samples", "2", "--no-previews"]
    words += ["--evaluation-samples", "2", "--evaluate-every", "5", "--out", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Signal, "is_noise", _is_noise)
        assert cli.main(words) == 0
    return folder / "run"


def _is_noise(rule, state):
    return state["count"][0] >= NOISE


def token_of(run):
    return load_file(run / "my-dog.safetensors")["<my-dog>"]


def test_a_run_ends_a_third_later_and_says_so(finished):
    report = json.loads((finished / "report.json").read_text())
    assert (report["status"], report["steps"]) == ("done", NOISE + 3)
    page = (finished / "report.html").read_text()
    assert "12 steps in all, since gradients are noise" in page


@pytest.mark.parametrize("after", [-3, 0, 3])  # records, from that of its end on
def test_a_killed_run_ends_there_with_the_same_bits(finished, after, tmp_path, monkeypatch):
    monkeypatch.setattr(Signal, "is_noise", _is_noise)
    killed = tmp_path / "killed"
    shutil.copytree(finished, killed)
    lines = (killed / "journal.jsonl").read_bytes().splitlines(keepends=True)
    [fit] = [n for n, line in enumerate(lines) if b'"kind":"fit"' in line]
    (killed / "journal.jsonl").write_bytes(b"".join(lines[: fit + after]))
    (killed / "my-dog.safetensors").unlink()
    for path in (killed / "checkpoints").glob("step-*.safetensors"):
        path.unlink()
    assert cli.main(["run", "--resume", str(killed)]) == 0
    assert json.loads((killed / "report.json").read_text())["steps"] == NOISE + 3
    np.testing.assert_array_equal(token_of(killed), token_of(finished))


def test_a_run_that_noise_ended_is_made_longer_by_a_number_of_steps(finished, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(finished, longer)
    assert cli.main(["run", "--resume", str(longer), "--steps", "20"]) == 0
    assert json.loads((longer / "report.json").read_text())["steps"] == 20
    assert not np.array_equal(token_of(longer), token_of(finished))
