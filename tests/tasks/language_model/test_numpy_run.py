"""Where there is no torch, a GGUF learns an adapter, and a resumed run ends with the same bits."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from gguf_models import plain_llama
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.memory.footprint import TRAIN
from edge_train.memory.plan import estimate
from edge_train.records.journal import Journal, read
from edge_train.tasks import open_job, read_recipe
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text, and a small GGUF file."""
    root = tmp_path_factory.mktemp("gguf")
    (root / "text.txt").write_text("the cat sat on the mat and the dog sat on the cat\n" * 60)
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    model = plain_llama(random=True, tokenizer__chat_template=template)
    (root / "model.gguf").write_bytes(model)
    return root


def run(place, out, *options):
    words = ["run", str(place / "text.txt"), "--task", "language-model", "--json"]
    words += ["--model", str(place / "model.gguf"), "--threads", "1", "--length", "16"]
    words += ["--steps", "30", "--lr", "1e-2", "--samples", "2", "--evaluate-every", "10"]
    return cli.main([*words, "--evaluation-samples", "4", "--out", str(out), *options])


@pytest.mark.parametrize(
    "options",
    [(), ("--trainable", "dora", "--micro-batch", "1", "--threads", "2"), ("--method", "zo")],
    ids=["lora", "dora in parts", "forward only"],
)
def test_it_learns_and_goes_on_with_the_same_bits(place, tmp_path, options, capsys):
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(place, whole, *options) == 0
    honest = "30 steps learn about what 1 of exact gradients do"
    assert (honest in capsys.readouterr().out) == ("zo" in options)
    report = json.loads((whole / "report.json").read_text())
    assert report["status"] == "done" and report["runtime"] == "numpy"
    if "zo" not in options:  # which needs many more steps
        assert report["eval"]["best"] < 0.9 * report["eval"]["first"]
    left = load_file(whole / "adapter" / "adapter_model.safetensors").values()
    numbers = sum(value.nbytes for value in left) * (1 + (whole / "adapter.gguf").is_file())
    planned = open_job(read_recipe(whole / "recipe.toml")).footprint().folder
    assert {line.name: line.bytes for line in planned}["results"] >= 2 * numbers  # with a copy
    shutil.copytree(whole, again)
    for name in ("adapter", "checkpoints"):
        shutil.rmtree(again / name)
    (again / "checkpoints").mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (again / "journal.jsonl").write_bytes(b"".join(lines[:15]))
    moved = shutil.copy(place / "model.gguf", tmp_path / "of another name.gguf")
    recipe = (again / "recipe.toml").read_text()
    (again / "recipe.toml").write_text(recipe.replace(str(place / "model.gguf"), str(moved)))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    found = [load_file(out / "adapter" / "adapter_model.safetensors") for out in (whole, again)]
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])
    more = tmp_path / "more"
    assert run(place, more, "--from", str(whole), "--steps", "5", *options) == 0
    first = json.loads((more / "report.json").read_text())["eval"]["first"]
    assert first == pytest.approx(report["eval"]["best"], rel=1e-6)


def test_forward_passes_are_planned_without_what_a_gradient_holds(place):
    def planned(method):
        words = {"data": str(place / "text.txt"), "model": str(place / "model.gguf")}
        recipe = LanguageModelRecipe(runtime="numpy", method=method, length=48, **words)
        held = open_job(replace(recipe, samples=16, threads=1)).footprint()
        return held, estimate(held, held.libraries_bytes).peak_bytes

    (exact, most), (forward, less) = planned("adamw"), planned("zo")
    assert less < most - 1_000_000
    assert any("gradients" in line.name for line in exact.known[TRAIN])
    assert not any("gradients" in line.name for line in forward.known[TRAIN])


def test_answers_are_learned_from_pairs_that_share_a_sequence(place, tmp_path):
    pairs = [{"prompt": "the cat ", "completion": f"sat on mat {n % 3}"} for n in range(60)]
    lines = (json.dumps(pair) + "\n" for pair in pairs)
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    words = ["run", str(tmp_path / "pairs.jsonl"), "--model", str(place / "model.gguf")]
    words += ["--task", "language-model", "--threads", "1", "--length", "64", "--steps", "20"]
    words += ["--lr", "1e-2", "--samples", "2", "--evaluate-every", "20", "--json"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["eval"]["best"] < 0.8 * report["eval"]["first"]
    assert not {"torch", "transformers"} & set(sys.modules)


def test_what_needs_torch_is_refused_with_what_does_without_it(place, tmp_path, capsys):
    def refused(*options):
        assert run(place, tmp_path / "out", *options) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    said = refused("--trainable", "all")
    assert "training all weights of a model needs torch" in said
    assert "`--trainable lora --runtime numpy` does without it" in said
    assert "--runtime numpy does without it" in refused("--runtime", "torch")
    assert "this run trains all weights" in refused("--trainable", "all", "--runtime", "numpy")
    assert "quant 'int8' is not for" in refused("--quant", "int8")
    assert "does not serve task 'language-model'" in refused("--runtime", "onnx")


def as_of_torch(run):
    """Make a run one of torch, as if it came from another machine."""
    recipe, path = run / "recipe.toml", run / "journal.jsonl"
    recipe.write_text(recipe.read_text().replace('runtime = "numpy"', 'runtime = "torch"'))
    records, _ = read(path)
    records = [{k: v for k, v in record.items() if k != "crc"} for record in records]
    for facts in (records[0]["facts"], records[0]["recipe"]["values"]):
        facts["runtime"] = "torch"
    path.unlink()
    book = Journal(path)
    for record in records:
        book.append(record)
    book.close()


def test_a_run_of_an_engine_that_is_not_here_is_reported_and_begun_from_by_another(
    place, tmp_path, capsys
):
    made, new = tmp_path / "made", tmp_path / "new"
    assert run(place, made, "--steps", "2") == 0
    as_of_torch(made)
    capsys.readouterr()
    assert cli.main(["run", "--resume", str(made)]) == 0
    assert "its report was made again" in capsys.readouterr().err
    for words in (["--steps", "4"], ["--mem", "1GB", "--steps", "4"]):
        assert cli.main(["run", "--resume", str(made), *words]) == 2
        said = capsys.readouterr().err
        assert "runtime 'torch', which needs torch" in said and "--runtime numpy" not in said
        assert f"with runtime numpy: `edge-train run --from {made}`" in said
    assert cli.main(["run", "--from", str(made), "--steps", "2", "--out", str(new)]) == 0
    assert json.loads((new / "report.json").read_text())["runtime"] == "numpy"
    shutil.rmtree(made / "adapter")
    assert cli.main(["run", "--resume", str(made)]) == 2  # nothing left to begin from
    assert "--from" not in capsys.readouterr().err
