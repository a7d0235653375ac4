"""A resumed run changes nothing that was computed, and nothing in silence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import GOLDEN
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.errors import RunFolderError
from edge_train.records import journal
from edge_train.records.resume import changed_engine, check_same_model

pytestmark = pytest.mark.process
ENGINE = ("onnxruntime", "onnxruntime-gpu")
FACTS = {
    "runtime": "onnx",
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
    "lean": False,
    "model": "artifact",
    "model_sha256": "ab" * 32,
    "versions": {"onnxruntime": "1.32.0", "torch": "2.13.0", "numpy": "2.4.6"},
}


def test_nothing_is_said_of_the_same_engine() -> None:
    assert changed_engine(FACTS, dict(FACTS), ENGINE) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"versions": {"onnxruntime": "1.30.0"}}, "onnxruntime 1.30.0 (was onnxruntime 1.32.0)"),
        ({"versions": {"onnxruntime-gpu": "1.32.0"}}, "onnxruntime-gpu 1.32.0 (was onnxruntime 1"),
        ({"device": "cuda"}, "device cuda (was device cpu)"),
        ({"threads": 4}, "threads 4 (was threads 1)"),
        ({"lean": True}, "lean True (was lean False)"),
    ],
)
def test_what_may_change_the_last_bits_is_said(change, named) -> None:
    sentence = changed_engine(FACTS, FACTS | change, ENGINE)
    assert sentence is not None
    assert named in sentence
    assert "the steps so far are exact" in sentence


def test_packages_that_compute_nothing_may_change() -> None:
    versions = {"onnxruntime": "1.32.0", "torch": "2.0.0", "numpy": "1.0.0"}
    assert changed_engine(FACTS, FACTS | {"versions": versions}, ENGINE) is None


def test_a_journal_that_knows_less_is_no_change() -> None:
    older = {name: value for name, value in FACTS.items() if name != "lean"}
    assert changed_engine(older, FACTS, ENGINE) is None


def test_another_model_is_refused() -> None:
    with pytest.raises(RunFolderError, match=r"began with model sha256 abab.*now has cdcd"):
        check_same_model(Path("run"), FACTS, "onnx", "artifact", "cd" * 32)


def test_a_model_that_earlier_code_knew_by_another_hash_is_the_same() -> None:
    known = ["ab" * 32]
    check_same_model(Path("run"), FACTS, "onnx", "artifact", "cd" * 32, known.__contains__)
    with pytest.raises(RunFolderError, match="began with model sha256"):
        check_same_model(Path("run"), FACTS, "onnx", "artifact", "cd" * 32, [].__contains__)


def test_another_runtime_is_refused_with_its_reason() -> None:
    with pytest.raises(RunFolderError, match="began on runtime 'onnx', tiny-sd runs on 'torch'"):
        check_same_model(Path("run"), FACTS, "torch", "tiny-sd", "ab" * 32)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Return a run on an artifact that was stopped after 20 of 40 steps, and its whole twin."""
    pytest.importorskip("onnxruntime")
    root = tmp_path_factory.mktemp("half")
    photos = root / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(photos / "0.png")
    shutil.copytree(GOLDEN, root / "artifact")
    words = ["run", str(photos), "--model", str(root / "artifact"), "--class", "dog"]
    words += ["--steps", "40", "--threads", "1", "--preview-steps", "1", "--prompt", "a {}"]
    assert cli.main([*words, "--out", str(root / "whole")]) == 0
    shutil.copytree(root / "whole", root / "run")
    lines = (root / "run" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (root / "run" / "journal.jsonl").write_bytes(b"".join(lines[:21]))
    for path in (root / "run" / "checkpoints").iterdir():
        path.unlink()
    (root / "run" / "my-dog.safetensors").unlink()
    return root


@pytest.fixture
def run(half, tmp_path):
    return shutil.copytree(half / "run", tmp_path / "run")


def token(folder):
    return load_file(folder / "my-dog.safetensors")["<my-dog>"]


def rewrite_start(run: Path, change) -> None:
    """Change the first record of a journal, as if the run had begun elsewhere."""
    records = list(journal.read(run / "journal.jsonl")[0])
    change(records[0]["facts"])
    (run / "journal.jsonl").unlink()
    book = journal.Journal(run / "journal.jsonl", None)
    for record in records:
        book.append({k: v for k, v in record.items() if k != "crc"})
    book.close()


def test_a_run_on_an_artifact_resumes_bit_for_bit(half, run) -> None:
    assert cli.main(["run", "--resume", str(run)]) == 0
    np.testing.assert_array_equal(token(run), token(half / "whole"))


def test_whether_the_engine_repeats_itself_is_on_record(half) -> None:
    records, _ = journal.read(half / "whole" / "journal.jsonl")
    assert records[0]["facts"]["repeats"] == "bit for bit"
    assert records[0]["facts"]["threads"] == 1


def test_another_engine_is_said_and_put_on_record(half, run, capsys) -> None:
    rewrite_start(run, lambda facts: facts.update(versions={"onnxruntime": "0.0.1"}))
    assert cli.main(["run", "--resume", str(run)]) == 0
    assert "onnxruntime 0.0.1): the steps so far are exact" in capsys.readouterr().err
    records, _ = journal.read(run / "journal.jsonl")
    events = [record for record in records if record["kind"] == "event"]
    assert any("the steps so far are exact" in event["text"] for event in events)
    np.testing.assert_array_equal(token(run), token(half / "whole"))  # it is the same after all


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_sha256": "0" * 64}, "this run began with model sha256 000000000000..."),
        ({"runtime": "torch", "model": "tiny-sd"}, "this run began on runtime 'torch'"),
    ],
)
def test_another_model_is_refused_by_the_command(run, capsys, change, sentence) -> None:
    rewrite_start(run, lambda facts: facts.update(change))
    before = (run / "journal.jsonl").read_bytes()
    assert cli.main(["run", "--resume", str(run)]) == 2
    assert sentence in capsys.readouterr().err
    assert (run / "journal.jsonl").read_bytes() == before


def test_an_artifact_that_was_exported_again_is_refused(half, run, tmp_path, capsys) -> None:
    copy = shutil.copytree(half / "artifact", tmp_path / "artifact")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["origin"]["sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    recipe = (run / "recipe.toml").read_text().replace(str(half / "artifact"), str(copy))
    (run / "recipe.toml").write_text(recipe)
    assert cli.main(["run", "--resume", str(run)]) == 2
    assert "this run began with model sha256" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [("--threads", "2"), ("--device", "cpu"), ("--lean",)])
def test_what_computes_cannot_be_changed_at_resume(run, capsys, flag) -> None:
    assert cli.main(["run", "--resume", str(run), *flag]) == 2
    assert f"{flag[0]} cannot be given" in capsys.readouterr().err


@pytest.fixture
def measured(monkeypatch):
    """Have two cores, of which one is found to pay; return the sessions that are opened."""
    from edge_train.run import training
    from edge_train.runtimes.onnx import diffusion, vae
    from edge_train.runtimes.threads import Threads
    from edge_train.tasks.personalize import parts

    def choose(runtime, one_pass, most):
        one_pass()
        runtime.use_threads(1)
        return Threads(1, most, {1: 0.1, 2: 0.2})

    opened = []
    for module in (diffusion, vae):
        real = module.open_session

        def open_session(path, provider, *, threads, real=real, **options):
            opened.append((path.stem, threads))
            return real(path, provider, threads=threads, **options)

        monkeypatch.setattr(module, "open_session", open_session)
    monkeypatch.setattr(parts, "cores", lambda: 2)
    monkeypatch.setattr(training, "choose", choose)
    return opened


def test_measured_threads_are_recorded_said_and_used_at_resume(
    half, tmp_path, measured, capsys
) -> None:
    out = tmp_path / "run"
    words = ["run", str(half / "photos"), "--model", str(half / "artifact"), "--class", "dog"]
    words += ["--steps", "4", "--preview-steps", "1", "--prompt", "a {}", "--out", str(out)]
    assert cli.main(words) == 0
    assert "1 thread: 2 would be 0.5 times as fast" in capsys.readouterr().err
    records, _ = journal.read(out / "journal.jsonl")
    assert records[0]["threads"] == {"count": 1, "most": 2, "seconds": {"1": 0.1, "2": 0.2}}
    assert records[0]["facts"]["threads"] == 1
    assert "1 thread: 2 would be 0.5 times as fast" in (out / "report.html").read_text()
    assert "\nthreads" not in (out / "recipe.toml").read_text()
    assert measured[:3] == [("vae_encoder", 2), ("step", 2), ("step", 1)]
    assert {threads for _, threads in measured[3:]} == {1}

    lines = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (out / "journal.jsonl").write_bytes(b"".join(lines[:3]))
    for path in (*(out / "checkpoints").iterdir(), out / "start.safetensors"):
        path.unlink()
    before = token(out)
    measured.clear()
    assert cli.main(["run", "--resume", str(out)]) == 0
    np.testing.assert_array_equal(token(out), before)
    # photos are encoded again with as many threads as the first time, all else with those chosen
    assert {threads for name, threads in measured if name == "vae_encoder"} == {2}
    assert {threads for name, threads in measured if name != "vae_encoder"} == {1}
    assert "(was threads" not in capsys.readouterr().err
