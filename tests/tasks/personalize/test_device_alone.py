"""A device with no torch and no desk learns out of the box: `edge-train run`, and nothing else."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.process


def edge_train(*words):
    return subprocess.run(
        [sys.executable, "-m", "edge_train", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The command of the README, with fewer steps; pictures and all."""
    out = tmp_path_factory.mktemp("alone") / "run"
    done = edge_train("run", "--steps", "20", "--threads", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout + done.stderr


def test_it_learns_the_embedded_photos_and_draws_under_200_mb(learned):
    out, said = learned
    report = json.loads((out / "report.json").read_text())
    assert (report["status"], report["runtime"], report["quant"]) == ("done", "onnx", "int8-fast")
    assert report["measured_peak_bytes"] < 200_000_000
    assert "tiny-sd as the int8-fast artifact that comes with the program" in said
    assert load_file(out / "my-item.safetensors")["<my-item>"].shape == (1, 128)
    assert list((out / "samples").glob("after-*.png"))
    assert report["metrics"]["pictures"] == 64  # that the embedded judge looked at


def test_a_run_goes_on_with_the_same_artifact(tmp_path):
    """The recipe says `tiny-sd` and the engine, so that torch may be installed in between."""
    out = tmp_path / "run"
    words = ("run", "--threads", "1", "--no-previews", "--out", out)
    assert edge_train(*words, "--steps", "4").returncode == 0
    done = edge_train("run", "--resume", out, "--steps", "6")
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert (report["steps"], report["runtime"]) == (6, "onnx")


def test_a_word_that_was_learned_on_a_desk_is_drawn(learned, tmp_path):
    """The recipe of a run with torch says so, and a method that no engine here has."""
    run = tmp_path / "desk"
    run.mkdir()
    shutil.copy(learned[0] / "my-item.safetensors", run)
    recipe = (learned[0] / "recipe.toml").read_text()
    desk = {"method": '"backprop"', "runtime": '"torch"', "quant": '"int8"', "until_noise": "true"}
    for name, value in desk.items():
        recipe = re.sub(f"^{name} = .*$", f"{name} = {value}", recipe, flags=re.M)
    (run / "recipe.toml").write_text(recipe)
    done = edge_train("generate", run, "--count", "1", "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert len(list((run / "generated").glob("picture-*.png"))) == 4


def test_what_the_artifact_cannot_do_is_one_sentence(tmp_path):
    done = edge_train("run", "--method", "backprop", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "zo" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
