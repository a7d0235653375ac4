"""Text classifiers: adapters, norms, MeZO, and numbers that are not finite."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from classifiers import make_data, make_tiny_classifier
from places import DEMOS
from safetensors.numpy import load_file

from edge_train import cli

pytest.importorskip("torch")
pytest.importorskip("peft")

from edge_train.bench.small_classifier import make_classifier

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    root = tmp_path_factory.mktemp("lora")
    data = make_data(root / "data")
    return data, make_tiny_classifier(root / "model", data)


def run(given, out, *options):
    data, model = given
    words = ["run", "--task", "classify", "--data", str(data), "--model", str(model)]
    words += ["--threads", "1", "--steps", "40", "--samples", "16", "--evaluate-every", "20"]
    return cli.main([*words, "--out", str(out), "--json", *options])


def report_of(out):
    return json.loads((out / "report.json").read_text())


def test_adapters_are_trained_with_small_moments_and_by_no_rule_of_low_rank(
    given, tmp_path, capsys
):
    """`adamw8bit` was refused as if it projected matrices."""
    words = ("--trainable", "lora", "--steps", "4", "--method")
    assert run(given, tmp_path / "run", *words, "adamw8bit") == 0
    assert report_of(tmp_path / "run")["outputs"]["adapter"] == "adapter"
    for method in ("galore", "apollo", "frugal"):
        assert run(given, tmp_path / method, *words, method) == 2
        assert "projects the matrices of layers" in capsys.readouterr().err


def test_adapters_learn_and_go_on_with_the_same_bits(given, tmp_path):
    whole = tmp_path / "whole"
    options = ("--method", "lora", "--rank", "4", "--lr", "3e-2", "--steps", "80")
    assert run(given, whole, *options) == 0
    report = report_of(whole)
    assert report["outputs"] == {"model": "model", "adapter": "adapter"}
    assert report["eval"]["best"] < 0.8 * report["eval"]["first"]
    settings = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (4, 8)
    before = load_file(given[1] / "model.safetensors")
    after = load_file(whole / "model" / "model.safetensors")
    changed = {name for name, value in before.items() if not np.array_equal(value, after[name])}
    layer = "bert.encoder.layer.0.attention.self"
    head = {"classifier.weight", "classifier.bias"}
    assert changed == {f"{layer}.query.weight", f"{layer}.value.weight", *head}
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    for name in ("model", "adapter", "checkpoints"):
        shutil.rmtree(again / name)
    (again / "checkpoints").mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:24]))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        expected = load_file(whole / name)
        for tensor, value in load_file(again / name).items():
            np.testing.assert_array_equal(value, expected[tensor])


@pytest.mark.parametrize("trainable", ["norms", "lora"])
def test_mezo_trains_what_it_is_told_to_with_two_forwards_and_no_state(given, tmp_path, trainable):
    from edge_train.records import checkpoint

    out = tmp_path / "run"
    options = ("--preset", "mezo", "--trainable", trainable, "--lr", "1e-2", "--steps", "4")
    assert run(given, out, *options) == 0
    report = report_of(out)
    evaluations = 3 * 40  # before, and with the last step; then the score
    assert (report["method"], report["backwards"]) == ("zo", 0)
    assert report["forwards"] - 4 * 2 * 16 in (evaluations - 40, evaluations)
    [*_, newest] = sorted((out / "checkpoints").glob("step-*"))
    state = checkpoint.load(newest).state
    assert all(part.nbytes <= 8 for parts in state.values() for part in parts.values())
    after = load_file(out / "model" / "model.safetensors")
    assert set(after) >= set(load_file(given[1] / "model.safetensors"))


def test_mezo_holds_one_block_more_than_inference(tmp_path):
    """In a fresh process: 25 MB of weights, of which the largest block is 1 MB."""
    data = make_data(tmp_path / "data")
    texts = [line.split("\t")[0] for line in (data / "train.tsv").read_text().splitlines()]
    model = make_classifier(tmp_path / "model", texts, layers=8, width=256, vocabulary=80)
    script = f"""
from pathlib import Path
import numpy as np
from edge_train.formats.classifier_folder import open_classifier
from edge_train.memory.measure import measure
from edge_train.estimators.zo import ZerothOrder
from edge_train.rng import Key
from edge_train.runtimes.torch.classifier import TorchClassifier
from edge_train.tasks.classify.objective import ClassifyText, TokenizedTexts
runtime = TorchClassifier.open(open_classifier(Path({str(model)!r})), trainable="all", threads=1)
ids = np.full((16, 16), 5, np.int32)
texts = TokenizedTexts(ids, np.full(16, 16, np.int32), np.arange(16, dtype=np.int32) % 2)
task = ClassifyText(texts, texts, 16, 16)
parameters = runtime.parameters
for _ in range(3):
    task.loss(runtime, task.batch(Key(0, 0)), [parameters])
before = measure().peak_bytes
method = ZerothOrder(1e-3, dict.fromkeys(parameters, 1.0), queries=1, sides=2)
for step in range(3):
    key = Key(0, step)
    def apply(name, gradient):
        gradient *= np.float32(1e-6)
        parameters.subtract(name, gradient, key)
    method.estimate(runtime, task, task.batch(key), key, apply)
weights = sum(block.nbytes for block in parameters.values())
print(weights, measure().peak_bytes - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    weights, more = map(int, done.stdout.split())
    assert weights > 25_000_000
    assert more < weights / 3, f"{more} bytes more than inference"


def test_a_cap_near_the_need_is_rehearsed_and_held(given, tmp_path):
    data, model = given
    words = ["run", "--task", "classify", "--data", str(data), "--model", str(model), "--mem"]
    words += ["900MB", "--steps", "2", "--threads", "1", "--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "edge_train", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["source"] == "rehearsal"
    assert report_of(tmp_path / "run")["measured_peak_bytes"] <= 900_000_000


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--method", "lora", "--rank", "40"), "use a --rank of at most 31"),
        (("--method", "lora", "--trainable", "head"), "method 'lora' trains adapters and the head"),
        (
            ("--method", "lora", "--refresh-every", "5"),
            "refresh_every is not read by method",
        ),
        (("--method", "galore", "--trainable", "lora"), "trainable 'lora' trains none of them"),
        (("--method", "apollo", "--trainable", "norms"), "trainable 'norms' trains none of them"),
        (
            ("--method", "adamw", "--preset", "mezo"),
            "preset 'mezo' is of --method zo, not of adamw",
        ),
        (("--trainable", "body"), "trainable 'body' is not known; choose one of all, head, norms"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(given, tmp_path, capsys, options, sentence):
    assert run(given, tmp_path / "run", *options) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_a_missing_peft_is_named(given, tmp_path, capsys, monkeypatch):
    from edge_train.tasks.classify import model as classify_text

    monkeypatch.setattr(classify_text, "find_spec", lambda name: None if name == "peft" else name)
    assert run(given, tmp_path / "run", "--method", "lora") == 2
    assert "needs peft, which is not installed" in capsys.readouterr().err


def test_a_model_with_nan_in_it_is_refused_before_anything_is_trained(given, tmp_path, capsys):
    from edge_train.formats.tensor_store import save_tensors

    data, model = given
    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    tensors = load_file(model / "model.safetensors")
    tensors["bert.encoder.layer.0.output.dense.bias"][3] = np.nan
    save_tensors(broken / "model.safetensors", tensors, {})
    assert run((data, broken), tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert "dense.bias' holds values that are not finite" in message and "Traceback" not in message


@pytest.mark.parametrize("method", ["lora", "q-galore"])
def test_gradients_that_stay_nan_stop_the_run_with_the_last_good_weights(
    given, tmp_path, capsys, monkeypatch, method
):
    from edge_train.runtimes.torch.classifier import TorchClassifier

    exact, seen = TorchClassifier.backward, {}

    def backward(self, batch, apply):
        step = seen.setdefault(batch["ids"].tobytes(), len(seen))
        if step >= 7:  # an accident in the middle of a backward pass
            name = next(iter(self.parameters))
            apply(name, np.full_like(self.parameters[name], np.nan))
        return exact(self, batch, apply)

    monkeypatch.setattr(TorchClassifier, "backward", backward)
    out = tmp_path / "run"
    options = ("--method", method, "--rank", "4", "--lr", "1e-3", "--evaluate-every", "7")
    assert run(given, out, *options, "--schedule", "constant") == 3
    message = capsys.readouterr().err
    assert "is not finite, 5 steps in a row" in message and "Traceback" not in message
    files = sorted((out / "checkpoints").glob("*.safetensors"))
    assert {path.name.split("-")[0] for path in files} == {"best", "step"}
    for path in files:
        assert all(np.isfinite(block).all() for block in load_file(path).values()), path.name
    monkeypatch.undo()
    assert cli.main(["run", "--resume", str(out), "--json"]) == 0
    report = report_of(out)
    assert (report["status"], report["steps"]) == ("done", 40)
    learned = load_file(out / "model" / "model.safetensors")
    assert all(np.isfinite(block).all() for block in learned.values())


def test_the_demo_runs_on_any_classifier_with_the_sentences_beside_it(given, tmp_path):
    demo = DEMOS / "sst2.toml"
    words = ["--length", "24", "--threads", "1", "--out", str(tmp_path / "run"), "--json"]
    assert cli.main(["run", "--recipe", str(demo), "--model", str(given[1]), *words]) == 0
    report = report_of(tmp_path / "run")
    assert (report["method"], report["metrics"]["scored_examples"]) == ("q-galore", 10)


def test_the_bench_says_what_it_needs(given, capsys):
    assert cli.main(["bench", "sst2", "--data", str(given[0])]) == 2
    assert "--data FOLDER --model FOLDER" in capsys.readouterr().err
