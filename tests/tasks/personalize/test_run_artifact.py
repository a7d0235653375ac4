"""A run on an artifact needs an engine and nothing else: photos to token, pictures and report."""

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from places import GOLDEN
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.errors import NonFinite
from edge_train.estimators.gauss_newton import GaussNewton
from edge_train.formats.artifact import open_artifact
from edge_train.formats.manifest import MANIFEST
from edge_train.records import journal

pytest.importorskip("onnxruntime")

from edge_train.runtimes.onnx.diffusion import OnnxDiffusion

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def arguments(photos, out, *options) -> list[str]:
    words = ["run", str(photos), "--model", str(GOLDEN), "--out", str(out), "--class", "dog"]
    few = ["--steps", "6", "--threads", "1", "--preview-steps", "2", "--prompt", "a photo of {}"]
    return [*words, *few, *options]


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    assert cli.main(arguments(photos, out)) == 0
    return out


def test_a_run_leaves_token_pictures_and_report(finished) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert (report["status"], report["runtime"], report["quant"]) == ("done", "onnx", "int8")
    assert report["backwards"] == 0
    token = load_file(finished / "my-dog.safetensors")["<my-dog>"]
    assert token.shape == (1, 16)
    assert len(list((finished / "samples").glob("after-*.png"))) == 1


def test_a_finished_run_draws_more_pictures(finished, tmp_path) -> None:
    out = tmp_path / "pictures"
    words = ["generate", str(finished), "--count", "2", "--steps", "2", "--out", str(out)]
    assert cli.main(words) == 0
    assert len(list(out.glob("*.png"))) == 3  # two and a contact sheet


def test_what_was_best_before_a_run_diverged_is_written(photos, tmp_path, monkeypatch, capsys):
    measure, calls = GaussNewton.measure, itertools.count()

    def diverging(self, *others):
        if next(calls) >= 20:
            raise NonFinite("a loss of the step is not finite")
        return measure(self, *others)

    monkeypatch.setattr(GaussNewton, "measure", diverging)
    out = tmp_path / "run"
    words = arguments(photos, out, "--steps", "60", "--evaluate-every", "5", "--no-previews")
    assert cli.main([*words, "--method", "zo"]) == 3
    assert "24 steps, and the best weights of them, are in" in capsys.readouterr().err
    assert json.loads((out / "report.json").read_text())["status"] == "stopped"
    assert load_file(out / "my-dog.safetensors")["<my-dog>"].shape == (1, 16)
    monkeypatch.setattr(GaussNewton, "measure", measure)
    assert cli.main(["run", "--resume", str(out)]) == 0


def test_two_runs_learn_the_same_bits(finished, photos, tmp_path) -> None:
    assert cli.main(arguments(photos, tmp_path / "again")) == 0
    first, second = (
        load_file(folder / "my-dog.safetensors")["<my-dog>"]
        for folder in (finished, tmp_path / "again")
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--runtime", "torch"), "runtime 'torch' was asked for, but artifact"),
        (("--quant", "int8-fast"), "was exported for 'int8'"),
        (("--resolution", "64"), "resolution 64 was asked for"),
        (("--dtype", "bfloat16"), "dtype 'bfloat16' was asked for"),
        (("--method", "backprop"), "only runs forward. Use --method zo"),
        (("--device", "qnn"), "device 'qnn' is not offered"),
    ],
)
def test_what_an_artifact_cannot_do_is_refused(photos, tmp_path, capsys, options, sentence) -> None:
    assert cli.main(arguments(photos, tmp_path / "run", *options)) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert "Traceback" not in message


def test_a_run_imports_no_torch(photos, tmp_path) -> None:
    script = (
        "import sys\n"
        "from edge_train import cli\n"
        f"assert cli.main({arguments(photos, tmp_path / 'run')!r}) == 0\n"
        "heavy = {'torch', 'onnx', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_run_says_where_it_runs_and_why(photos, tmp_path, capsys) -> None:
    assert cli.main(arguments(photos, tmp_path / "run", "--lean")) == 0
    assert "device cpu: " in capsys.readouterr().err


def test_the_report_of_a_run_is_made_again(finished) -> None:
    (finished / "report.html").unlink()
    assert cli.main(["report", str(finished)]) == 0
    assert "my-dog" in (finished / "report.html").read_text()


def test_the_memory_lean_mode_is_for_the_cpu(photos, tmp_path, monkeypatch, capsys) -> None:
    from edge_train.runtimes.onnx import engine as onnx_engine
    from edge_train.runtimes.onnx.engine import Provider

    elsewhere = Provider("cuda", "CUDAExecutionProvider", "asked for")
    monkeypatch.setattr(onnx_engine, "pick_provider", lambda *_: elsewhere)
    assert cli.main(arguments(photos, tmp_path / "run", "--lean")) == 2
    assert "only the cpu can compute from; device is cuda" in capsys.readouterr().err


def test_memory_of_another_device_is_said_not_to_be_measured(monkeypatch) -> None:
    from recipes import recipe_for

    from edge_train.runtimes.onnx import engine as onnx_engine
    from edge_train.runtimes.onnx.engine import Provider
    from edge_train.tasks.personalize import parts

    elsewhere = Provider("cuda", "CUDAExecutionProvider", "asked for")
    monkeypatch.setattr(onnx_engine, "pick_provider", lambda *_: elsewhere)
    recipe = recipe_for(model=str(GOLDEN), class_word="dog", cap_bytes=10**9)
    notes = parts.check(recipe).notes
    assert any("is not measured" in note and "CUDA arena" in note for note in notes)


def test_a_radius_that_export_found_too_small_is_said() -> None:
    from recipes import recipe_for

    from edge_train.tasks.personalize import parts

    safe = open_artifact(GOLDEN).manifest.safe_epsilon
    for epsilon, said in ((safe / 2, True), (safe, False)):
        notes = parts.check(recipe_for(model=str(GOLDEN), class_word="dog", epsilon=epsilon)).notes
        assert any("the smallest radius" in note for note in notes) == said


def radius_of(run) -> float:
    records, _ = journal.read(run / "journal.jsonl")
    return records[0]["slope_check"]["epsilon"]


def test_no_radius_below_the_safe_one_is_taken(photos, tmp_path) -> None:
    folder = shutil.copytree(GOLDEN, tmp_path / "artifact")
    manifest = replace(open_artifact(folder).manifest, safe_epsilon=0.15)
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    words = arguments(photos, tmp_path / "run", "--model", str(folder), "--relative-rate", "0.5")
    assert cli.main(words) == 0
    assert radius_of(tmp_path / "run") == 0.15


def test_a_safe_radius_that_measures_rounding_here_is_raised(
    photos, tmp_path, monkeypatch, capsys
) -> None:
    exact = OnnxDiffusion.forward
    step = 1e-4  # of a loss; slopes of this model change it by about half of that at radius 0.1
    monkeypatch.setattr(
        OnnxDiffusion,
        "forward",
        lambda self, batch, points: np.round(exact(self, batch, points) / step) * np.float32(step),
    )
    assert open_artifact(GOLDEN).manifest.safe_epsilon < 0.1
    assert cli.main(arguments(photos, tmp_path / "run", "--relative-rate", "0.5")) == 0
    assert radius_of(tmp_path / "run") > 0.1
    assert "raised from 0.1, where slopes agree only to" in capsys.readouterr().err
