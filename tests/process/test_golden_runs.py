"""Runs that earlier code was stopped in are reported and brought to their end by this code."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

GOLDEN = Path(__file__).parents[1] / "golden"
# run -> the package that its engine needs; None: the standard installation
NEEDS = {
    "personalize-torch": "torch",
    "personalize-onnx": "onnxruntime",
    "classify-torch": "peft",
    "classify-ort-training": "onnxruntime.training",
    "language-model": "torch",
    "network": None,
}


def edge_train(*words):
    command = [sys.executable, "-m", "edge_train", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def records_of(run):
    return [json.loads(line) for line in (run / "journal.jsonl").read_bytes().splitlines()]


def steps_of(run):
    return [record["step"] for record in records_of(run) if record["kind"] == "step"]


def report_of(run):
    return json.loads((run / "report.json").read_text())


def last_state(run):
    from edge_train.records import checkpoint

    return checkpoint.load(max(run.glob("checkpoints/step-*.safetensors"))).state


@pytest.fixture(params=NEEDS)
def run(request, tmp_path):
    """A copy of a golden run, whose recipe finds its model and data."""
    needed = NEEDS[request.param]
    if needed and (find_spec(needed.split(".")[0]) is None or find_spec(needed) is None):
        pytest.skip(f"needs {needed}")
    folder = shutil.copytree(GOLDEN / "stopped" / request.param, tmp_path / request.param)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("{golden}", GOLDEN.as_posix()), "utf-8")
    return folder


def test_a_run_of_earlier_code_is_reported_and_goes_on_to_its_end(run):
    before, records = (run / "journal.jsonl").read_bytes(), records_of(run)
    taken, planned = steps_of(run), records[0]["facts"]["steps_planned"]
    assert 0 < len(taken) < planned
    edge_train("report", run)
    report = report_of(run)
    killed = records[-1]["kind"] != "end"
    assert report["status"] == ("running" if killed else "interrupted")
    assert report["steps"] == len(taken)

    edge_train("run", "--resume", run, "--json")
    assert (run / "journal.jsonl").read_bytes().startswith(before)
    assert steps_of(run) == list(range(planned))
    assert records_of(run)[-1]["status"] == "done"
    report = report_of(run)
    assert (report["status"], report["steps"], report["resumed"]) == ("done", planned, 1)
    if run.name == "language-model":  # earlier code projected the output layer, and so it goes on
        assert "0.basis.codes" in last_state(run)["lm_head.weight"]
    assert report["outputs"]
    for name in report["outputs"].values():
        assert (run / name).exists()
