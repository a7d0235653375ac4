"""A run that trains a text classifier: what it leaves, how it goes on, what it refuses."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from page_lines import lines_to_copy
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.errors import InputError
from edge_train.run import session

pytest.importorskip("torch")

from edge_train.runtimes.onnx import classifier as ort_training
from edge_train.tasks import open_job
from edge_train.tasks.classify import model as classify_text
from edge_train.tasks.classify.recipe import ClassifyRecipe

pytestmark = pytest.mark.process
FEW = ("--steps", "24", "--samples", "8", "--evaluate-every", "4", "--threads", "1")


def run(classifiers, engine, out, *options):
    model = classifiers.model if engine == "torch" else classifiers.artifact
    words = ["run", "--task", "classify", "--data", str(classifiers.data), "--model", str(model)]
    return cli.main(
        [*words, "--out", str(out), "--learning_rate", "5e-3", *FEW, *options, "--json"]
    )


@pytest.fixture(scope="module", params=["torch", "ort-training"])
def finished(request, classifiers, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(classifiers, request.param, out) == 0
    return request.param, out


def report_of(out):
    return json.loads((out / "report.json").read_text())


def weights_of(out):
    return load_file(out / "model" / "model.safetensors")


def journal_of(out):
    return (out / "journal.jsonl").read_bytes().splitlines(keepends=True)


def losses_of(out):
    lines = map(json.loads, journal_of(out))
    return [(line["loss"], line["eval"]) for line in lines if line["kind"] == "step"]


def test_a_run_leaves_a_model_and_its_score(finished):
    engine, out = finished
    report = report_of(out)
    assert (report["status"], report["task"], report["runtime"]) == ("done", "classify", engine)
    assert (report["backwards"], report["outputs"]) == (24 * 8, {"model": "model"})
    metrics = report["metrics"]
    assert metrics["scored_on"] == "dev" and metrics["scored_examples"] == 40
    assert np.sum(metrics["confusion"]) == 40
    assert metrics["accuracy"] == np.trace(metrics["confusion"]) / 40
    assert report["eval"]["best"] < 0.99 * report["eval"]["first"]
    assert (out / "report.html").read_text().startswith("<!doctype html>")


def test_answers_come_from_the_artifact_of_the_run_and_no_other(classifiers, tmp_path, capsys):
    artifact, out = tmp_path / "artifact", tmp_path / "run"
    shutil.copytree(classifiers.head_artifact, artifact)
    own = replace(classifiers, artifact=artifact)
    assert run(own, "ort-training", out, "--steps", "2") == 0
    assert cli.main(["infer", str(out), "a text"]) == 0
    shutil.rmtree(artifact)
    shutil.copytree(classifiers.artifact, artifact)  # of other frozen weights: of none
    capsys.readouterr()
    assert cli.main(["infer", str(out), "a text"]) == 2
    assert "is not the artifact that" in capsys.readouterr().err


def test_it_learns_to_tell_the_classes_apart(classifiers, tmp_path):
    assert (
        run(
            classifiers,
            "ort-training",
            tmp_path / "run",
            "--steps",
            "60",
            "--learning_rate",
            "1e-2",
        )
        == 0
    )
    assert report_of(tmp_path / "run")["metrics"]["accuracy"] == 1.0


def test_transformers_loads_the_model_and_finds_the_same_classes(finished, classifiers):
    import torch
    from transformers import AutoModelForSequenceClassification

    from edge_train.tasks.classify.texts import read_examples
    from edge_train.tasks.classify.tokenizer import TextTokenizer

    _, out = finished
    network = AutoModelForSequenceClassification.from_pretrained(out / "model")
    examples = read_examples(classifiers.data / "dev.tsv")
    texts = TextTokenizer.from_folder(out / "model", 0, 100).encode(
        [example.text for example in examples], 16
    )
    ids, counts = texts.ids, texts.counts
    mask = torch.from_numpy((np.arange(16) < counts[:, None]).astype(np.int64))
    with torch.no_grad():
        found = network(input_ids=torch.from_numpy(ids).long(), attention_mask=mask).logits
    right = found.argmax(1).numpy() == [int(example.label) for example in examples]
    assert right.mean() == report_of(out)["metrics"]["accuracy"]


def test_both_engines_see_the_same_run(classifiers, tmp_path):
    losses = []
    for engine in ("torch", "ort-training"):
        assert run(classifiers, engine, tmp_path / engine) == 0
        losses.append([loss for loss, _ in losses_of(tmp_path / engine)])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
    # later losses drift apart by rounding alone, which Adam's first steps magnify
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("kept", [0, 5, 17])
def test_a_cut_run_ends_with_the_same_bits(finished, tmp_path, kept):
    _, out = finished
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "model")
    shutil.rmtree(again / "checkpoints")
    (again / "checkpoints").mkdir()
    (again / "journal.jsonl").write_bytes(b"".join(journal_of(out)[: kept + 1])[:-1])
    if kept == 17:
        (again / "start.safetensors").write_bytes(b"damaged")
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    expected = weights_of(out)
    for name, value in weights_of(again).items():
        np.testing.assert_array_equal(value, expected[name])
    assert losses_of(again) == losses_of(out)


def test_training_there_imports_no_torch(classifiers, tmp_path):
    words = ["run", "--task", "classify", "--data", str(classifiers.data), "--json", *FEW]
    words += ["--model", str(classifiers.artifact), "--out", str(tmp_path / "run")]
    script = (
        "import sys\n"
        "from edge_train import cli\n"
        f"assert cli.main({words!r}) == 0\n"
        "heavy = {'torch', 'onnx', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_lean_run_computes_the_same_bits(classifiers, tmp_path):
    assert run(classifiers, "ort-training", tmp_path / "whole", "--steps", "3") == 0
    assert run(classifiers, "ort-training", tmp_path / "lean", "--steps", "3", "--lean") == 0
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "lean")


@pytest.mark.parametrize("engine", ["torch", "ort-training"])
def test_forward_only_training_runs_on_the_same_models(classifiers, tmp_path, engine):
    assert run(classifiers, engine, tmp_path / "run", "--method", "zo", "--steps", "2") == 0
    report = report_of(tmp_path / "run")
    assert (report["method"], report["backwards"]) == ("zo", 0)


def test_only_the_head_changes_where_only_it_is_trained(classifiers, tmp_path):
    assert run(classifiers, "torch", tmp_path / "run", "--trainable", "head") == 0
    before = load_file(classifiers.model / "model.safetensors")
    after = weights_of(tmp_path / "run")
    changed = {name for name, value in before.items() if not np.array_equal(value, after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("engine", "options", "sentence"),
    [
        ("torch", ("--runtime", "ort-training"), "--for ort-training`, then run --model OUT"),
        ("torch", ("--device", "cuda"), "torch finds none; use --device cpu"),
        ("torch", ("--device", "qnn"), "device 'qnn' is not for task 'classify'"),
        ("ort-training", ("--device", "cuda"), "device 'cuda' is not for task 'classify'"),
        ("torch", ("--quant", "int8"), "quant 'int8' is not for task 'classify'"),
        ("torch", ("--lean",), "lean True is not for task 'classify' with this model"),
        ("torch", ("--data", "nowhere"), "there is no such file or folder"),
        ("torch", ("--length", "99"), "length is 99, but the model has 24 positions"),
        ("torch", ("--class", "dog"), "class_word is not read by task 'classify'"),
        ("ort-training", ("--runtime", "torch"), "runtime 'torch' is not for task 'classify'"),
        ("ort-training", ("--trainable", "head"), "was exported to train all weights"),
        ("torch", ("--model", "tiny-sd"), "needs a model: name the folder"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    classifiers, tmp_path, capsys, engine, options, sentence
):
    assert run(classifiers, engine, tmp_path / "run", *options) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_a_training_artifact_is_not_for_personalization(classifiers, tmp_path, capsys):
    words = ["run", "--model", str(classifiers.artifact), "--out", str(tmp_path / "run")]
    assert cli.main(words) == 2
    assert "--task classify" in capsys.readouterr().err


def test_only_a_classifier_is_trained_there(tmp_path, capsys):
    words = ["run", "--runtime", "ort-training", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 2
    assert "no gradient for the GroupNorm and Resize" in capsys.readouterr().err


def test_a_classifier_generates_nothing(finished, capsys):
    assert cli.main(["generate", str(finished[1])]) == 2
    assert "a run of task 'classify', and generate is for runs of" in capsys.readouterr().err


def test_data_must_be_named(classifiers, capsys):
    assert cli.main(["run", "--task", "classify", "--model", str(classifiers.model)]) == 2
    assert "needs labeled texts: name a file or folder with `data`" in capsys.readouterr().err


def test_an_engine_that_cannot_train_is_refused(classifiers, tmp_path, capsys, monkeypatch):
    owners = {"onnxruntime": ["onnxruntime"]}
    monkeypatch.setattr(ort_training, "packages_distributions", lambda: owners)
    assert run(classifiers, "ort-training", tmp_path / "run") == 2
    assert "needs the training flavor of ONNX Runtime; onnxruntime is" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_missing_engine_is_named_before_a_folder_is_made(
    classifiers, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(classify_text, "find_spec", lambda name: None)
    assert run(classifiers, "torch", tmp_path / "run") == 2
    assert "needs torch, which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_missing_tensor_is_named_and_a_missing_head_is_made(classifiers, tmp_path):
    from edge_train.errors import ModelError
    from edge_train.formats.classifier_folder import open_classifier
    from edge_train.formats.tensor_store import save_tensors
    from edge_train.runtimes.torch.classifier import TorchClassifier
    from edge_train.runtimes.torch.classifier_network import load_classifier, new_heads

    folder = tmp_path / "encoder"
    shutil.copytree(classifiers.model, folder)
    tensors = load_file(folder / "model.safetensors")
    plain = {n.removeprefix("bert."): v for n, v in tensors.items() if n.startswith("bert.")}
    save_tensors(folder / "model.safetensors", plain, {})
    network, first = load_classifier(open_classifier(folder))
    assert new_heads(open_classifier(folder), network) == ("classifier.bias", "classifier.weight")
    assert new_heads(open_classifier(classifiers.model), network) == ()
    second = load_classifier(open_classifier(folder))[1]
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
        if name in tensors and name.startswith("bert."):
            np.testing.assert_array_equal(value, tensors[name])
    assert 0 < first["classifier.weight"].std() < 0.05
    del plain["pooler.dense.weight"]  # masked-language training saves none
    save_tensors(folder / "model.safetensors", plain, {})
    network, third = load_classifier(open_classifier(folder))
    assert new_heads(open_classifier(folder), network)[0] == "bert.pooler.dense.weight"
    assert third["bert.pooler.dense.weight"].any()
    opened = TorchClassifier.open(open_classifier(folder), trainable="head", threads=1)
    assert "bert.pooler.dense.weight" in opened.parameters  # it has to learn, too
    del plain["encoder.layer.0.output.dense.bias"]
    save_tensors(folder / "model.safetensors", plain, {})
    with pytest.raises(ModelError, match=r"no tensor 'bert\.encoder\.layer\.0\.output\.dense"):
        load_classifier(open_classifier(folder))


def test_a_new_head_is_for_folders_alone(classifiers, tmp_path, capsys):
    assert run(classifiers, "ort-training", tmp_path / "run", "--new-head") == 2
    assert "new_head is not for artifact" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change", [{"id2label": {"0": "no", "1": "yes"}}, {"pad_token_id": 1}], ids=str
)
def test_another_configuration_is_refused_by_the_name_of_its_file(
    classifiers, tmp_path, capsys, monkeypatch, change
):
    """The hash of a model was that of its weights: other labels resumed unnoticed.

    The refusal comes before torch is loaded, which takes a minute on a busy machine.
    """
    model = shutil.copytree(classifiers.model, tmp_path / "model")
    moved = replace(classifiers, model=model)
    out = tmp_path / "run"
    assert run(moved, "torch", out, "--steps", "4") == 0
    (out / "journal.jsonl").write_bytes(b"".join(journal_of(out)[:3]))  # as if it was stopped
    before = (model / "config.json").read_text()
    (model / "config.json").write_text(json.dumps(json.loads(before) | change))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(session, "load", lambda *_: pytest.fail("libraries were loaded first"))
        assert cli.main(["run", "--resume", str(out)]) == 2
    assert f"{model / 'config.json'} is not what it was" in capsys.readouterr().err
    (model / "config.json").write_text(before)
    (out / "model_files.json").write_text("[]")  # damaged: said, and no reason to stop
    assert cli.main(["run", "--resume", str(out)]) == 0
    assert "model_files.json: cannot be used" in capsys.readouterr().err


def test_the_page_of_a_classifier_shows_what_is_taken_for_what(finished, classifiers):
    _, out = finished
    page = (out / "report.html").read_text()
    assert "What is taken for what" in page and "Dev samples: a row" in page
    mistakes = report_of(out)["metrics"]["mistakes"]
    assert mistakes and page.count("taken for <b") == len(mistakes)
    texts = [line.split("\t") for line in (classifiers.data / "dev.tsv").read_text().splitlines()]
    assert {(one["text"], one["label"]) for one in mistakes} <= {(t, label) for t, label in texts}


def test_the_lines_of_the_page_load_the_model(finished, monkeypatch, capsys):
    _, out = finished
    monkeypatch.chdir(out)
    capsys.readouterr()
    exec(lines_to_copy(out / "report.html")["transformers"], {})
    assert "'label'" in capsys.readouterr().out


@pytest.fixture(scope="module")
def encoder(classifiers, tmp_path_factory):
    """The tiny classifier without its head, and a training artifact as an export writes of it."""
    from edge_train.formats.tensor_store import save_tensors

    root = tmp_path_factory.mktemp("encoder")
    shutil.copytree(classifiers.model, root / "torch")
    tensors = load_file(root / "torch" / "model.safetensors")
    plain = {n.removeprefix("bert."): v for n, v in tensors.items() if n.startswith("bert.")}
    save_tensors(root / "torch" / "model.safetensors", plain, {})
    shutil.copytree(classifiers.artifact, root / "ort-training")
    path = root / "ort-training" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["origin"]["new_heads"] = " ".join(n for n in tensors if not n.startswith("bert."))
    path.write_text(json.dumps(manifest))
    return root


@pytest.mark.parametrize(
    ("engine", "trainable"),
    [("torch", "all"), ("torch", "head"), ("torch", "lora"), ("ort-training", "all")],
)
def test_new_heads_and_adapters_are_drawn_by_the_seed(classifiers, encoder, engine, trainable):
    """All seeds began from the same numbers, so that the spread of a score was too narrow."""

    def start(seed):
        recipe = ClassifyRecipe(
            data=str(classifiers.data), model=str(encoder / engine), trainable=trainable, seed=seed
        )
        runtime = open_job(recipe).open_runtime()
        return dict(runtime.parameters.copy())

    one, same, other = start(1), start(1), start(2)
    drawn = {n for n in one if "classifier" in n or ".lora_A." in n}
    drawn = {n for n in drawn if one[n].any()}  # not the biases
    assert len(drawn) == (3 if trainable == "lora" else 1)
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
        assert np.array_equal(one[name], other[name]) == (name not in drawn)


@pytest.mark.parametrize("engine", ["torch", "ort-training"])
def test_a_gradient_in_parts_is_that_of_the_whole_batch(classifiers, tmp_path, engine):
    found = []
    for limit in ("8", "3", "1"):
        out = tmp_path / limit
        assert run(classifiers, engine, out, "--batch-limit", limit) == 0
        found.append([loss for loss, _ in losses_of(out)])
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    # as between engines: rounding alone
    assert found[0] == pytest.approx(found[1], rel=0.02)
    assert found[0] == pytest.approx(found[2], rel=0.02)


def test_forwards_need_no_training_flavor(classifiers, tmp_path, capsys, monkeypatch):
    def refuse():
        raise InputError("needs the training flavor")

    monkeypatch.setattr(ort_training, "check_flavor", refuse)
    options = ("--preset", "mezo", "--lr", "1e-3", "--steps", "4")
    assert run(classifiers, "ort-training", tmp_path / "forwards", *options) == 0
    assert report_of(tmp_path / "forwards")["backwards"] == 0
    assert run(classifiers, "ort-training", tmp_path / "gradients") == 2
    assert "needs the training flavor" in capsys.readouterr().err


def test_a_classifier_is_planned_with_every_rule_that_has_room(classifiers):
    from recipes import recipe_for

    from edge_train.run.survey import survey

    wanted = recipe_for(
        task="classify", data=str(classifiers.data), model=str(classifiers.model), threads=1
    )
    found = survey(wanted, everything=True)
    methods = {choice.recipe.method for choice in found.choices}
    assert methods == {"backprop", "adamw8bit", "galore", "q-galore", "apollo-mini", "zo"}
    assert {choice.recipe.batch_limit for choice in found.choices} == {None, 8, 1}


def test_a_model_with_a_vocabulary_alone_trains_as_with_tokenizer_json_which_the_result_has(
    classifiers, tmp_path
):
    transformers = pytest.importorskip("transformers")
    model = tmp_path / "model"
    shutil.copytree(classifiers.model, model)
    vocabulary = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    words = ["run", "--task", "classify", "--data", str(classifiers.data), *FEW, "--json"]
    for name, folder in (("whole", classifiers.model), ("run", model)):
        out = ["--model", str(folder), "--out", str(tmp_path / name)]
        assert cli.main([*words, *out]) == 0
    assert losses_of(tmp_path / "run") == losses_of(tmp_path / "whole")
    kept = transformers.AutoTokenizer.from_pretrained(tmp_path / "run/model")
    assert kept("the fine film")["input_ids"][1] == vocabulary["the"]
    assert (tmp_path / "run/model/tokenizer.json").is_file()
