"""A prompt in front of a frozen classifier's texts, on torch and from its artifact."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from classifiers import make_decided, make_tiny_classifier

from edge_train import cli
from edge_train.records import journal
from edge_train.tasks.classify.export import export_training

pytest.importorskip("torch")

pytestmark = pytest.mark.process

SEARCH = ("--method", "discrete", "--tries", "8", "--steps", "8", "--evaluate-every", "2")


@pytest.fixture(scope="module")
def uneven(classifiers, tmp_path_factory):
    """Texts of which few are of class 0, so that a prompt has a bias to find."""
    folder = tmp_path_factory.mktemp("uneven")
    for name in ("train.tsv", "dev.tsv"):
        lines = (classifiers.data / name).read_text().splitlines(keepends=True)
        kept = [line for n, line in enumerate(lines) if line.endswith("1\n") or n % 8 == 0]
        (folder / name).write_text("".join(kept))
    return folder


def run(classifiers, engine, out, *options, data=None):
    model = classifiers.model if engine == "torch" else classifiers.artifact
    data = data or classifiers.data
    words = ["run", "--task", "classify", "--data", str(data), "--model", str(model)]
    words += ["--threads", "1", "--samples", "16", "--json", "--out", str(out)]
    return cli.main([*words, *options])


def report_of(out):
    return json.loads((out / "report.json").read_text())


@pytest.mark.parametrize("engine", ["torch", "ort-training"])
def test_a_prompt_lowers_the_loss_of_a_frozen_classifier(classifiers, uneven, tmp_path, engine):
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(classifiers, engine, whole, *SEARCH, "--prompt-tokens", "2", data=uneven) == 0
    report = report_of(whole)
    assert report["runtime"] == engine
    assert report["eval"]["best"] < report["eval"]["first"]
    assert not (whole / "model").exists()
    found = json.loads((whole / "prompt.json").read_text())
    assert len(found["ids"]) == 2 and found["text"] == report["metrics"]["prompt"]
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints")
    (again / "checkpoints").mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:5]))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    assert (whole / "prompt.json").read_bytes() == (again / "prompt.json").read_bytes()
    assert report_of(again)["eval"] == report["eval"]


@pytest.mark.parametrize("engine", ["torch", "ort-training"])
@pytest.mark.parametrize(
    "options", [("--steps", "20", "--method", "backprop", "--lr", "0.01"), SEARCH]
)
def test_new_texts_get_the_classes_that_the_report_counts(
    classifiers, tmp_path, engine, options, capsys, monkeypatch
):
    out = tmp_path / "run"
    assert run(classifiers, engine, out, *options, "--length", "20") == 0
    capsys.readouterr()
    rows = [line.rsplit("\t", 1) for line in (classifiers.data / "dev.tsv").read_text().split("\n")]
    rows = [row for row in rows if len(row) == 2]
    assert cli.main(["infer", str(out), "--json", *[text for text, _ in rows]]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counts = np.zeros((2, 2), int)
    for one, (_, label) in zip(found, rows, strict=True):
        counts[int(label), int(one["class"])] += 1
    assert counts.tolist() == report_of(out)["metrics"]["confusion"]
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{rows[0][0]}\n{rows[0][0] * 9}\n"))
    assert cli.main(["infer", str(out), "-"]) == 0
    short, long = capsys.readouterr().out.splitlines()
    assert "first 20 tokens" in long and "first 20 tokens" not in short
    assert cli.main(["infer", str(out), ""]) == 2
    assert "a text is empty" in capsys.readouterr().err


def test_both_engines_find_the_same_prompt(classifiers, tmp_path):
    """Losses that decide differ by 2e-4 or more here, and those of the two engines by 2e-6.

    As they are, random weights give prompts whose losses are as close as two engines round.
    """
    model = make_decided(make_tiny_classifier(tmp_path / "model", classifiers.data), 15)
    export_training(str(model), tmp_path / "all", head_only=False, threads=1, say=lambda _: None)
    decided, chosen = replace(classifiers, model=model, artifact=tmp_path / "all"), []
    for engine in ("torch", "ort-training"):
        assert run(decided, engine, tmp_path / engine, *SEARCH, "--prompt-tokens", "2") == 0
        records, _ = journal.read(tmp_path / engine / "journal.jsonl")
        chosen.append([record["scalars"] for record in records if record.get("kind") == "step"])
    assert chosen[0] == chosen[1]
    assert len({token for _, token in chosen[0]}) > 2  # of so many steps, some found a better one
    one, other = (report_of(tmp_path / e) for e in ("torch", "ort-training"))
    assert one["metrics"]["prompt"] == other["metrics"]["prompt"]
    assert one["eval"]["best"] == pytest.approx(other["eval"]["best"], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--prompt-tokens", "30"), "not every text holds the prompt"),
        (("--trainable", "lora"), "leave one of them out"),
        (("--new-head",), "new_head is not for"),
        (("--prompt-start", " "), "--prompt-start is empty"),
        (("--prompt-start", "good [SEP] bad"), "is not read as the same"),
    ],
)
def test_what_no_prompt_can_be_is_refused(classifiers, tmp_path, options, said, capsys):
    assert run(classifiers, "torch", tmp_path / "out", *SEARCH, *options) == 2
    assert said in capsys.readouterr().err


def test_keys_of_a_prompt_are_refused_where_weights_are_trained(classifiers, tmp_path, capsys):
    assert run(classifiers, "torch", tmp_path / "out", "--prompt-tokens", "3") == 2
    assert "prompt_tokens is of --method discrete" in capsys.readouterr().err
