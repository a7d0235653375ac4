"""Task `network` through the real command: trains, resumes bit for bit, keeps small."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from page_lines import lines_to_copy
from places import DEMOS
from running import kill, steps_in

from edge_train import cli
from edge_train.errors import ModelError
from edge_train.formats import network_file
from edge_train.records import journal
from edge_train.runtimes.numpy.network import NumpyNetwork
from edge_train.tasks import open_job
from edge_train.tasks.network.recipe import NetworkRecipe

pytestmark = pytest.mark.process
PATTERNS = np.random.default_rng(5).integers(0, 256, (3, 8, 8))


def pictures(path, count=240, shift=0, labels=None):
    """Save pictures of three patterns under noise; `shift` inverts their contrast."""
    random = np.random.default_rng(1)
    found = {}
    for part, size in (("train", count), ("test", 60)):
        numbers = random.integers(0, 3, size) if labels is None else np.resize(labels, size)
        noisy = PATTERNS[numbers] + 60 * random.standard_normal((size, 8, 8))
        images = np.clip(noisy, 0, 255).astype(np.uint8)
        found[f"{part}_images"] = 255 - images if shift else images
        found[f"{part}_labels"] = numbers
    np.savez(path, **found, class_names=np.array(["a", "b", "c"]))
    return path


def recipe(folder, name="recipe", **keys):
    if "data" not in keys:
        keys["data"] = pictures(folder / "data.npz").name
    keys = {"task": "network", "network": "mlp 20 16", "steps": 60, "samples": 20} | keys
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(path, out, *options):
    status = cli.main(["run", "--recipe", str(path), "--out", str(out), "--json", *options])
    assert status == 0
    return json.loads((out / "report.json").read_text())


def refused(capsys, path, out, status=2):
    assert cli.main(["run", "--recipe", str(path), "--out", str(out)]) == status
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("edge-train: ")
    assert "Traceback" not in message
    return message


def test_what_was_left_out_is_said_once_and_stands_in_the_report(tmp_path, capsys):
    rows = [f"{n};{n % 7},5;{'ab'[n % 2]}" for n in range(60)]
    (tmp_path / "data.csv").write_text("\n".join(["x;y;label", *rows, "one"]) + "\n")
    report = run(recipe(tmp_path, data="data.csv", network="mlp 4", steps=3), tmp_path / "run")
    assert report["notices"] == [
        "1 of 61 rows of data.csv is left out: line 62 has 1 columns, expected 3",
        "numbers of data.csv have a decimal comma: 0,5 is read as 0.5",
    ]
    said = capsys.readouterr().out + capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text()
    for line in report["notices"]:
        assert said.count(line) == page.count(line) == 1


@pytest.mark.parametrize("method", ["tpsgd", "local", "drtp", "dfa", "backprop"])
@pytest.mark.parametrize("quant", ["none", "int8"])
def test_every_method_learns_what_can_be_learned(tmp_path, method, quant):
    momentum = 0.9 if quant == "none" else 0.0
    path = recipe(tmp_path, method=method, quant=quant, momentum=momentum, steps=120)
    report = run(path, tmp_path / "run")
    assert report["status"] == "done"
    assert report["metrics"]["test_accuracy"] > 0.9
    assert (report["backwards"] > 0) == (method == "backprop")
    assert np.sum(report["metrics"]["confusion"]) == 60


@pytest.mark.parametrize(
    ("network", "keys"),
    [
        ("conv 4 3, batchnorm, relu, maxpool 2, dense 12, tanh", {}),
        ("gru 12 12", {"targets": "every", "through_time": False}),
        ("lstm 12", {"micro_batch": 8}),
        ("mlp 20", {"mode": "sequential", "loss": "l2", "projection_scale": 0.5}),
    ],
)
def test_other_networks_and_modes_learn_too(tmp_path, network, keys):
    path = recipe(tmp_path, network=network, steps=150, **keys)
    assert run(path, tmp_path / "run")["metrics"]["test_accuracy"] > 0.8


def test_batch_normalization_judges_by_statistics_with_little_noise(tmp_path):
    """Those of 100 samples added 3 to 4 % to every evaluation loss."""
    path = pictures(tmp_path / "data.npz", count=3000)
    job = open_job(NetworkRecipe(data=str(path), network="dense 64, batchnorm, relu"))
    job.load()
    runtime, task = job.open_runtime(), job.task()
    samples = task.inputs(np.arange(task.count))
    exact = NumpyNetwork(runtime.network, runtime.parameters, samples)
    fewer = NumpyNetwork(runtime.network, runtime.parameters, samples[:100])
    batch = task.evaluation()
    point = [runtime.parameters]
    own, best, few = (task.loss(one, batch, point)[0] for one in (runtime, exact, fewer))
    # Noise falls with the root of the number of samples: to half, and some luck.
    assert np.abs(own - best).mean() < 0.8 * np.abs(few - best).mean()


@pytest.mark.parametrize("every", [5, 1000])
def test_a_rate_that_blows_up_the_evaluation_is_a_sentence_and_a_run_that_resumes(
    tmp_path, capsys, every
):
    """At a rate of 1000 evaluations ended in a traceback, the journal's numbers being finite."""
    path = recipe(tmp_path, network="mlp 20 20 relu", learning_rate=1000, evaluate_every=every)
    path.write_text(path.read_text() + 'method = "backprop"\n')
    message = refused(capsys, path, tmp_path / "run", status=3)
    assert "not finite" in message and "--resume" in message and "--learning-rate" in message
    for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["status"] == "stopped" and report["eval"]["best_step"] == 0
    assert cli.main(["run", "--resume", str(tmp_path / "run")]) == 3


def test_outputs_that_can_grow_get_a_rate_at_which_they_do_not(tmp_path):
    """At the rate for bounded outputs all ReLUs ended at zero, and every picture in one class."""
    path = recipe(tmp_path, network="mlp 200 200 relu", steps=120, method="tpsgd", loss="l2")
    assert run(path, tmp_path / "run")["metrics"]["test_accuracy"] > 0.8


def test_the_run_folder_has_the_network_and_a_page_with_its_curves(tmp_path):
    report = run(recipe(tmp_path), tmp_path / "run")
    assert report["outputs"] == {"network": "network.safetensors"}
    page = (tmp_path / "run" / "report.html").read_text()
    for words in ("Layer by layer", "Block 3: dense", "What is taken for what", "mlp 20 16 on"):
        assert words in page
    records, _ = journal.read(tmp_path / "run" / "journal.jsonl")
    steps = [record for record in records if record["kind"] == "step"]
    assert all(len(record["block_losses"]) == 3 for record in steps)
    assert not (tmp_path / "run" / "outputs").exists()


def test_a_saved_network_reads_as_it_was_and_a_damaged_one_is_refused(tmp_path):
    text = "conv 4 3, batchnorm, relu, maxpool 2, dense 12, tanh"
    report = run(recipe(tmp_path, network=text, quant="int8", momentum=0.0), tmp_path / "run")
    path = tmp_path / "run" / "network.safetensors"
    saved = network_file.load(path)
    assert saved.class_names == ("a", "b", "c")
    runtime = NumpyNetwork(saved.network, saved.parameters)
    with np.load(tmp_path / "data.npz") as arrays:
        images, labels = arrays["test_images"][..., None], arrays["test_labels"]
    inputs = ((images - saved.mean) / saved.deviation).astype(np.float32)
    logits = runtime.outputs(inputs, saved.parameters, dict(saved.statistics))
    assert (logits.argmax(axis=1) == labels).mean() == report["metrics"]["test_accuracy"]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ModelError, match="not a network that edge-train saved"):
        network_file.load(path)


@pytest.fixture
def whole(tmp_path):
    """Return a function that does a run of 300 steps of a recipe with these keys."""

    def whole(**keys):
        path = recipe(tmp_path, steps=300, evaluate_every=100, **keys)
        run(path, tmp_path / "whole")
        return path, tmp_path / "whole"

    return whole


def ends_as(out, whole):
    """Resume a run; see that it ends with the bits of another."""
    assert cli.main(["run", "--resume", str(out), "--json"]) == 0
    name = "network.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path, whole):
    """One kill; twenty of them are in `test_crash_network`."""
    path, undisturbed = whole(mode="sequential", method="local")
    out = tmp_path / "killed"
    assert kill(("run", "--recipe", path, "--out", out), out, 100, 0.005)
    assert 0 < steps_in(out) < 300
    ends_as(out, undisturbed)


@pytest.mark.parametrize(
    "keys",
    [
        {"quant": "int8", "momentum": 0.5},
        {"network": "conv 4 3, batchnorm, relu, dense 9, tanh", "micro_batch": 10},
    ],
    ids=["int8", "conv"],
)
def test_with_its_journal_cut_it_ends_with_the_same_bits(whole, tmp_path, keys):
    _, undisturbed = whole(**keys)
    out = shutil.copytree(undisturbed, tmp_path / "again")
    (out / "network.safetensors").unlink()
    for checkpoint in (out / "checkpoints").iterdir():  # all of them are of later steps
        checkpoint.unlink()
    content = (out / "journal.jsonl").read_bytes()
    (out / "journal.jsonl").write_bytes(content[: len(content) // 2])
    ends_as(out, undisturbed)


def test_other_data_under_the_same_name_is_noticed_on_resume(tmp_path, capsys):
    path = recipe(tmp_path)
    run(path, tmp_path / "run")
    book = tmp_path / "run" / "journal.jsonl"
    book.write_bytes(b"".join(book.read_bytes().splitlines(keepends=True)[:-5]))
    pictures(tmp_path / "data.npz", count=239)
    assert cli.main(["run", "--resume", str(tmp_path / "run")]) == 2
    assert "not those that this run began with" in capsys.readouterr().err


def test_a_damaged_hash_of_the_data_is_left_out_and_another_one_is_refused(tmp_path, capsys):
    """A file of older versions: the journals of newer ones have that hash."""
    run(recipe(tmp_path), tmp_path / "run")
    kept = tmp_path / "run" / "data.sha256"
    book = tmp_path / "run" / "journal.jsonl"
    book.write_bytes(b"".join(book.read_bytes().splitlines(keepends=True)[:-5]))
    before = book.read_bytes()
    for content, status in ((b"\xff\xfe", 0), (b"", 0), (b"0" * 64, 2)):
        kept.write_bytes(content)
        book.write_bytes(before)
        assert cli.main(["run", "--resume", str(tmp_path / "run")]) == status
        said = capsys.readouterr().err
        assert ("left out" in said, "not those" in said) == (status == 0, status == 2)


BAD = {
    "no network": ({"network": None}, "needs network in its recipe"),
    "no data": ({"data": None}, "needs data in its recipe"),
    "a skip": (
        {"network": "dense 5, skip, dense 5"},
        "'skip' carries values past trainable layers",
    ),
    "unknown loss": ({"loss": "l3"}, "loss 'l3' is not known"),
    "method": ({"method": "galore"}, "method 'galore' is not for task 'network', only"),
    "runtime": ({"runtime": "torch"}, "does not serve task 'network'"),
    "quant": ({"quant": "int4"}, "only none, int8"),
    "threads": ({"threads": 2}, "OPENBLAS_NUM_THREADS"),
    "sequential": (
        {"method": "backprop", "mode": "sequential"},
        "mode is not read by method 'backprop'",
    ),
    "micro": ({"method": "dfa", "micro_batch": 5}, "micro_batch is not read by method 'dfa'"),
    "loss of another": ({"method": "local", "loss": "l2"}, "loss is not read by method 'local'"),
    "blocks of none": ({"backbone_blocks": 1}, "there is no backbone"),
    "series of none": ({"series": [5, 1]}, "only a table can be a time series"),
    "no resizing": ({"resolution": 16}, "only a folder of pictures can be resized"),
    "photos": ({"photos": "x"}, "photos is not read by task 'network'"),
    "held out": ({"evaluation_samples": 200}, "more than half of 240"),
    "no backbone": ({"backbone": "nothing.safetensors"}, "there is no such file"),
    "a folder to start from": ({"start": "."}, "is a folder; name a file"),
    "no picture": ({"network": "conv 3 9 valid"}, "does not fit"),
}


@pytest.mark.parametrize(("keys", "words"), BAD.values(), ids=BAD.keys())
def test_bad_words_are_one_sentence_before_anything_starts(tmp_path, capsys, keys, words):
    message = refused(capsys, recipe(tmp_path, **keys), tmp_path / "run")
    assert words in message
    assert not (tmp_path / "run").exists()


def test_one_class_only_is_refused(tmp_path, capsys):
    pictures(tmp_path / "data.npz", labels=[1])
    message = refused(capsys, recipe(tmp_path, data="data.npz"), tmp_path / "run")
    assert "all training samples are of one class ('b')" in message


def test_keys_and_methods_of_networks_are_refused_by_other_tasks(tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    path.write_text('network = "lenet"\n')
    assert "network is not read by task 'personalize'" in refused(capsys, path, tmp_path / "run")


def adapted(tmp_path, backbone, **keys):
    """Train on what an inversion of contrast leaves of a backbone's features."""
    data = pictures(tmp_path / "new.npz", shift=1).name
    path = recipe(tmp_path, "adapter", network="mlp 16", backbone=backbone, data=data, **keys)
    return run(path, tmp_path / "adapted")


def test_an_adapter_recovers_what_a_shift_took(tmp_path):
    run(recipe(tmp_path, network="conv 4 3, tanh, dense 24, tanh"), tmp_path / "source")
    metrics = adapted(
        tmp_path, "source/network.safetensors", backbone_blocks=1, old_data="data.npz"
    )["metrics"]
    assert metrics["old_backbone_accuracy"] > 0.9
    assert metrics["backbone_accuracy"] < 0.6
    assert metrics["test_accuracy"] > 0.9
    assert 0 <= metrics["old_accuracy"] <= 1
    assert not (tmp_path / "adapted" / "network.safetensors").exists()


def other_order(path):
    """Save the same pictures with their classes numbered the other way round."""
    arrays = dict(np.load(pictures(path)))
    for name in ("train_labels", "test_labels"):
        arrays[name] = 2 - arrays[name]
    np.savez(path, **{**arrays, "class_names": arrays["class_names"][::-1]})
    return path.name


def test_a_backbone_is_judged_by_the_names_of_its_classes(tmp_path):
    run(recipe(tmp_path, network="conv 4 3, tanh, dense 24, tanh"), tmp_path / "source")
    words = {"backbone": "source/network.safetensors", "backbone_blocks": 1}
    data = other_order(tmp_path / "other.npz")
    path = recipe(tmp_path, "adapter", network="mlp 16", data=data, old_data="data.npz", **words)
    metrics = run(path, tmp_path / "adapted")["metrics"]
    for name in ("test", "backbone", "old", "old_backbone"):
        assert metrics[f"{name}_accuracy"] > 0.9, name


def test_a_run_goes_on_from_classes_in_another_order(tmp_path):
    first = run(recipe(tmp_path), tmp_path / "first")
    path = recipe(tmp_path, "next", data=other_order(tmp_path / "other.npz"), steps=1)
    report = run(path, tmp_path / "again", "--from", str(tmp_path / "first"))
    assert report["eval"]["first"] < 0.5 * first["eval"]["first"]


@pytest.mark.skipif(not find_spec("onnx"), reason="onnx writes the graph")
@pytest.mark.parametrize("quant", ["none", "int8"])
@pytest.mark.parametrize(
    "text",
    ["conv 4 3, batchnorm, relu, maxpool 2, conv 3 3 valid, tanh, meanpool 2, dense 9, sigmoid"],
)
def test_an_exported_backbone_gives_the_features_of_the_saved_one(tmp_path, text, quant):
    from edge_train.runtimes.backbones import NumpyBackbone, OnnxBackbone

    run(recipe(tmp_path, network=text), tmp_path / "source")
    source = tmp_path / "source" / "network.safetensors"
    saved = network_file.load(source)
    random = np.random.default_rng(0)
    stored = random.integers(0, 256, (7, 8, 8, 1), np.uint8)
    for blocks in (1, 2, 3, 4):
        out = tmp_path / f"{blocks}.onnx"
        options = ["--blocks", str(blocks), "--quant", quant]
        assert cli.main(["export", str(source), str(out), *options]) == 0
        exported = OnnxBackbone(out, (8, 8, 1))
        exact = NumpyBackbone(saved, blocks)
        assert exported.feature_shape == exact.feature_shape
        tolerance = 1e-4 if quant == "none" else 0.1  # 1 / 127 of the largest weight, four layers
        np.testing.assert_allclose(exported(stored), exact(stored), atol=tolerance)
    metrics = adapted(tmp_path, "1.onnx", steps=200)["metrics"]
    assert metrics["test_accuracy"] > 0.9


@pytest.mark.skipif(not find_spec("onnx"), reason="onnx writes the graph")
def test_an_exported_adapter_answers_the_features_of_its_backbone(tmp_path, capsys):
    from edge_train.runtimes.backbones import NumpyBackbone, OnnxBackbone

    run(recipe(tmp_path, network="conv 4 3, tanh, dense 24, tanh"), tmp_path / "source")
    metrics = adapted(tmp_path, "source/network.safetensors", backbone_blocks=1)["metrics"]
    source, out = tmp_path / "adapted" / "adapter.safetensors", tmp_path / "adapter.onnx"
    words = ["export", str(source), str(out), "--quant", "none", "--blocks", "2"]
    assert cli.main(words) == 0
    features = NumpyBackbone(network_file.load(tmp_path / "source" / "network.safetensors"), 1)
    data = np.load(tmp_path / "new.npz")
    found = OnnxBackbone(out, features.feature_shape)(features(data["test_images"][..., None]))
    right = found.argmax(axis=1) == data["test_labels"]
    assert right.mean() == metrics["test_accuracy"] > 0.9
    saved = network_file.load(source)  # as earlier versions wrote it, with what samples need
    network_file.save(source, replace(saved, mean=np.ones(1, np.float32)))
    assert cli.main(words) == 2
    assert "train it again" in capsys.readouterr().err


def held(folder, name, **keys):
    """Return the bytes of arrays above the loaded data in a fresh process."""
    path = recipe(folder, name, **keys)
    done = subprocess.run(
        [sys.executable, "-m", "edge_train.bench.step_cost", str(path), "3"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["array_bytes"]


def test_one_block_at_a_time_holds_what_the_largest_block_needs(tmp_path):
    """Eight equal layers: their activations and float weights must not add up."""
    deep = {"network": "mlp" + " 300" * 8, "samples": 100}
    exact = held(tmp_path, "backprop", method="backprop", **deep)
    local = held(tmp_path, "local", method="tpsgd", quant="int8", momentum=0.0, **deep)
    assert local < 0.4 * exact
    shallow = {"network": "mlp 300 300", "samples": 100}
    more = local - held(tmp_path, "shallow", quant="int8", momentum=0.0, **shallow)
    assert more < 6 * 300 * 300 * 1.5  # what is added are six more matrices at a byte per weight


def test_parts_of_a_batch_bound_what_a_convolution_holds(tmp_path):
    wide = {"network": "conv 32 3, tanh, conv 32 3, tanh, maxpool 2", "samples": 120}
    exact = held(tmp_path, "backprop", method="backprop", **wide)
    assert held(tmp_path, "parts", micro_batch=12, **wide) < 0.6 * exact


@pytest.mark.parametrize("name", ["tpsgd_fashion", "tpsgd_rows"])
def test_the_shipped_recipes_stay_under_their_cap(tmp_path, name):
    path = DEMOS / f"{name}.toml"
    out = tmp_path / "run"
    options = ["--steps", "20", "--mem", "200MB", "--out", str(out), "--json"]
    command = [sys.executable, "-m", "edge_train", "run", "--recipe", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "done"
    assert report["measured_peak_bytes"] < 200e6


def test_data_may_be_named_on_the_command_line(tmp_path):
    pictures(tmp_path / "elsewhere.npz")
    path = recipe(tmp_path, data="missing.npz")
    options = ["--data", str(tmp_path / "elsewhere.npz"), "--network", "mlp 8"]
    assert run(path, tmp_path / "run", *options)["metrics"]["test_samples"] == 60


def test_the_page_shows_mistakes_and_lines_that_use_the_network(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx")
    data = pictures(tmp_path / "data.npz")
    report = run(recipe(tmp_path, data=data.name, steps=1), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    mistakes = report["metrics"]["mistakes"]
    assert mistakes and page.count("taken for <b") == len(mistakes)
    found = lines_to_copy(tmp_path / "run" / "report.html")
    monkeypatch.chdir(tmp_path / "run")
    export = next(code for name, code in found.items() if "a file for ONNX" in name)
    assert cli.main(export.split()[1:]) == 0
    np.save("samples.npy", np.load(data)["test_images"][..., None])
    capsys.readouterr()
    exec(found["ONNX Runtime"], {})
    answers = np.array(re.findall(r"[0-9]+", capsys.readouterr().out), int)
    right = answers == np.load(data)["test_labels"]
    assert right.mean() == pytest.approx(report["metrics"]["test_accuracy"], abs=0.02)  # near ties
    words = found["edge-train, to learn more"].replace("MORE", str(data)).split()[1:]
    assert cli.main([*words, "--steps", "1", "--out", str(tmp_path / "on")]) == 0
