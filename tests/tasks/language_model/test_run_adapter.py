"""Adapters through the command line: what a run leaves, going on, being killed, being refused."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import dying
import numpy as np
import pytest
from byte_tokenizer import save_byte_tokenizer
from page_lines import lines_to_copy
from safetensors.numpy import load_file

from edge_train import cli
from edge_train.formats.adapter import read_adapter, write_adapter
from edge_train.formats.weight_files import read_json
from edge_train.tasks import open_job, read_recipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.process

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 300,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text, and a model folder with random weights in it."""
    root = tmp_path_factory.mktemp("adapters")
    text = "the cat sat on the mat and the dog sat on the cat\n" * 200
    (root / "text.txt").write_text(text)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SIZES))
    network.save_pretrained(root / "model")
    save_byte_tokenizer(root / "model", root / "text.txt")
    return root


def words(place, out, *options):
    found = ["run", "--task", "language-model", "--data", str(place / "text.txt")]
    found += ["--model", str(place / "model"), "--threads", "1", "--json", "--length", "16"]
    found += ["--samples", "2", "--steps", "12", "--lr", "1e-2", "--evaluate-every", "4"]
    if not {"--trainable", "galore"} & {*options}:
        found += ["--trainable", "lora"]
    return [*found, "--out", str(out), *options]


def run(place, out, *options):
    return cli.main(words(place, out, *options))


def report_of(out):
    return json.loads((out / "report.json").read_text())


def tensors(out):
    return load_file(out / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    """A run of twelve steps with all defaults."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(place, out) == 0
    return out


def test_an_adapter_of_a_run_is_loaded_by_peft_with_the_reported_loss(place, finished):
    peft = pytest.importorskip("peft")
    report = report_of(finished)
    assert report["outputs"] == {"adapter": "adapter"} and not (finished / "model").exists()
    assert report["eval"]["best"] < report["eval"]["first"] - 0.1
    base = transformers.AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # between peft and transformers
        loaded = peft.PeftModel.from_pretrained(base, str(finished / "adapter")).eval()
    job = open_job(read_recipe(finished / "recipe.toml"))
    job.restore(finished, print)
    rows = torch.from_numpy(job.task().held_out()["ids"])
    with torch.no_grad():
        loss = float(loaded(rows, labels=rows).loss)
    assert loss == pytest.approx(report["metrics"]["held_out_loss"], rel=1e-4)
    config = read_json(finished / "adapter" / "adapter_config.json")
    assert (config["r"], config["lora_alpha"], len(config["target_modules"])) == (16, 32, 14)


@pytest.mark.parametrize(
    "options",
    [
        ("--trainable", "dora", "--quant", "int8", "--method", "adamw8bit"),
        ("--lean", "--micro-batch", "1", "--rslora", "--targets", "q_proj,down_proj"),
        ("--method", "zo", "--quant", "int4", "--rank", "2"),
    ],
    ids=" ".join,
)
def test_a_run_goes_on_from_its_journal_to_the_same_bits(place, tmp_path, options):
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert run(place, whole, *options, "--steps", "8") == 0
    shutil.copytree(whole, again)
    for name in ("adapter", "checkpoints"):
        shutil.rmtree(again / name)
    (again / "checkpoints").mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert 0 < sum(b'"kind":"step"' in line for line in lines[:6]) < 8
    (again / "journal.jsonl").write_bytes(b"".join(lines[:6]))
    assert cli.main(["run", "--resume", str(again), "--json"]) == 0
    assert_same_adapter(again, whole)


def test_all_linear_names_what_the_default_is(finished):
    recipe = read_recipe(finished / "recipe.toml")
    assert recipe.targets is None
    job, named = open_job(recipe), open_job(replace(recipe, targets="all-linear"))
    assert named.adapter == job.adapter


@pytest.mark.slow  # torch starts once more; `test_crash_chats` kills a run that starts sooner
def test_a_killed_run_goes_on_to_the_same_bits(place, finished, tmp_path):
    killed = tmp_path / "killed"
    command = [sys.executable, dying.__file__, "7", "0.02", *words(place, killed)]
    done = subprocess.run(command, check=False, capture_output=True, env=dict(os.environ))
    assert done.returncode < 0 and not (killed / "adapter").exists()
    assert cli.main(["run", "--resume", str(killed), "--json"]) == 0
    assert_same_adapter(killed, finished)


def assert_same_adapter(found, expected):
    found, expected = tensors(found), tensors(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_new_run_starts_from_the_adapter_of_another(place, finished, tmp_path):
    out = tmp_path / "on"
    line = ["run", "--from", str(finished), "--steps", "4", "--out", str(out), "--json"]
    assert cli.main(line) == 0
    before, after = report_of(finished), report_of(out)
    assert after["eval"]["first"] == pytest.approx(before["eval"]["last"], rel=1e-5)
    adapter, _ = read_adapter(out / "adapter")
    assert adapter == read_adapter(finished / "adapter")[0]


def test_lines_of_the_page_load_the_adapter(finished, monkeypatch):
    pytest.importorskip("peft")
    found = lines_to_copy(finished / "report.html")
    monkeypatch.chdir(finished)
    scope = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # between peft and transformers
        exec(found["peft, where the model is a folder or a hub id"], scope)
    assert "lora_B" in " ".join(name for name, _ in scope["model"].named_parameters())


def test_a_finished_run_is_made_longer(place, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    assert cli.main(["run", "--resume", str(out), "--steps", "16", "--json"]) == 0
    assert report_of(out)["steps"] == 16
    assert any((tensors(out)[n] != v).any() for n, v in tensors(finished).items())


@pytest.mark.parametrize(
    ("keys", "trained"),
    [
        ({}, "all"),
        ({"alpha": 4.0}, "lora"),
        ({"method": "adamw", "rank": 4}, "lora"),
        ({"method": "galore", "rank": 4}, "all"),
        ({"runtime": "numpy"}, "lora"),
    ],
    ids=str,
)
def test_a_folder_is_trained_whole_unless_a_word_is_of_adapters(place, keys, trained):
    from edge_train.formats.language_folder import open_language_model
    from edge_train.tasks.language_model.adapting import settled
    from edge_train.tasks.language_model.recipe import LanguageModelRecipe

    model = open_language_model(place / "model")
    recipe = LanguageModelRecipe(model=str(place / "model"), **keys)
    assert settled(recipe, model).trainable == trained


def test_all_weights_are_trained_where_they_are_asked_for(place, tmp_path):
    for options in (("--trainable", "all"), ("--method", "galore", "--rank", "4")):
        out = tmp_path / options[-1]
        assert run(place, out, *options, "--steps", "2") == 0
        assert report_of(out)["outputs"]["model"] == "model"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--targets", "q_prj"), "did you mean 'q_proj'"),
        (("--targets", "lm_head"), "no linear layer below the head is called"),
        (("--rank", "99"), "use a --rank of at most 32"),
        (("--trainable", "all", "--alpha", "4"), "alpha is of adapters"),
        (("--trainable", "lora", "--method", "galore"), "method 'galore' trains all weights"),
        (("--trainable", "dora", "--difference-rank", "2"), "leave one of them out"),
        (("--trainable", "lor"), "did you mean 'lora'"),
        (("--alpha", "0"), "alpha"),
        (("--device", "tensorrt"), "device 'tensorrt' is not for task 'language-model'"),
        (("--device", "cuda", "--runtime", "numpy"), "device 'cuda' is not for runtime 'numpy'"),
        (("--device", "cuda"), "torch finds none; use --device cpu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_adapted_is_one_sentence(
    place, tmp_path, capsys, monkeypatch, options, sentence
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(place, tmp_path / "run", *options) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_a_card_that_runs_short_is_named_and_the_run_can_be_resumed(
    place, tmp_path, capsys, monkeypatch
):
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel

    out, backward, calls = tmp_path / "run", AdaptedLanguageModel.backward, []

    def short(runtime, *given):
        calls.append(None)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")
        return backward(runtime, *given)

    monkeypatch.setattr(AdaptedLanguageModel, "backward", short)
    assert run(place, out, "--clip", "1e9") == 3
    message = capsys.readouterr().err
    assert "step 2: 2.15 GB more did not fit on the GPU" in message and "--mem" in message
    assert cli.main(["run", "--resume", str(out), "--json"]) == 0


def test_a_driver_that_goes_away_is_one_sentence_and_the_run_goes_on_to_the_same_bits(
    place, tmp_path, capsys, monkeypatch
):
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel

    out, backward, calls = tmp_path / "run", AdaptedLanguageModel.backward, []
    text = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously..."

    def gone(runtime, *given):
        calls.append(None)
        if len(calls) == 3:
            raise RuntimeError(text)
        return backward(runtime, *given)

    assert run(place, tmp_path / "whole", "--steps", "5") == 0
    monkeypatch.setattr(AdaptedLanguageModel, "backward", gone)
    capsys.readouterr()
    assert run(place, out, "--steps", "5") == 3
    message = capsys.readouterr().err
    assert "step 2: the GPU stopped answering (CUDA error: unspecified launch failure)" in message
    assert "nvidia-smi" in message and f"--resume {out}" in message and "Traceback" not in message
    assert cli.main(["run", "--resume", str(out), "--json"]) == 0
    ends = [json.loads((f / "report.json").read_text())["eval"] for f in (out, tmp_path / "whole")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("CUDA error: no kernel image is available", "the GPU does not answer (CUDA error: no ke"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", "2.15 GB more did not fit on the GPU"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "an allocation did not fit on the GPU"),
    ],
)
def test_a_card_that_cannot_hold_the_model_is_one_sentence_before_the_first_step(
    place, tmp_path, capsys, monkeypatch, error, sentence
):
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel

    def open_(*_, **__):
        raise RuntimeError(error)

    monkeypatch.setattr(AdaptedLanguageModel, "open", open_)
    assert run(place, tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert sentence in message and "--device cpu" in message and "Traceback" not in message


def test_an_adapter_of_another_base_is_refused(place, finished, tmp_path, capsys):
    other = shutil.copytree(place / "model", tmp_path / "other")
    values = load_file(other / "model.safetensors")
    values["model.norm.weight"] = values["model.norm.weight"] + 1
    from safetensors.numpy import save_file

    save_file(values, other / "model.safetensors", {"format": "pt"})
    start = str(finished / "adapter")
    assert run(place, tmp_path / "run", "--from", start, "--model", str(other)) == 2
    assert "name the model that it belongs to" in capsys.readouterr().err
    assert run(place, tmp_path / "run", "--from", start, "--rank", "8") == 2
    assert "rank is 8, but the adapter" in capsys.readouterr().err
    assert run(place, tmp_path / "run", "--from", start, "--trainable", "all") == 2
    said = capsys.readouterr().err
    assert "is an adapter, and --trainable says 'all'; leave that out" in said
    assert f"`edge-train export {start} merged --to merged`" in said


def test_a_dora_to_start_from_stays_one_and_is_refused_where_another_kind_is_asked_for(
    place, finished, tmp_path, capsys
):
    adapter, _ = read_adapter(finished / "adapter")
    dora = replace(adapter, kind="dora")
    lengths = {one.path: np.ones(one.outputs, np.float32) for one in dora.targets}
    write_adapter(tmp_path / "dora", dora, dora.drawn(0, lengths))
    start = ("--from", str(tmp_path / "dora"), "--trainable")
    assert run(place, tmp_path / "run", *start, "lora") == 2
    assert "trainable is lora, but the adapter" in capsys.readouterr().err
    assert run(place, tmp_path / "run", *start, "auto") == 0
    assert read_adapter(tmp_path / "run" / "adapter")[0].kind == "dora"
    assert (
        run(place, tmp_path / "other", "--from", str(finished / "adapter"), *start[2:], "dora") == 2
    )
    assert "trainable is dora, but the adapter" in capsys.readouterr().err


def test_a_plan_counts_the_adapter_and_what_stays_in_the_file(place):
    from recipes import recipe_for

    from edge_train.tasks.language_model.job import LanguageModelJob

    keys = {"task": "language-model", "model": str(place / "model"), "length": 16, "rank": 4}
    keys |= {"data": str(place / "text.txt"), "trainable": "lora"}

    def lines(**more):
        footprint = LanguageModelJob(recipe_for(**keys, **more)).footprint()
        return {line.name: line.bytes for line in footprint.known["train"]}

    plain, lean = lines(), lines(lean=True)
    numbers = 4 * 2 * (4 * 64 + 3 * 96)  # of rank 4: four layers of 32 x 32, three of 32 x 64
    assert plain["adapter"] == plain["gradients of the adapter"] == 4 * numbers
    assert plain["optimizer state and copies"] >= 2 * 4 * numbers
    matrices = 2 * 300 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64)
    assert plain["frozen weights"] - lean["frozen weights"] == 4 * matrices
    assert Path(place / "model" / "model.safetensors").stat().st_size > 4 * matrices


def test_a_run_goes_on_beside_a_base_that_was_moved_and_with_no_other(place, tmp_path, capsys):
    base, out = tmp_path / "before", tmp_path / "run"
    shutil.copytree(place / "model", base)
    assert run(place, out, "--model", str(base)) == 0
    base.rename(tmp_path / "now")
    resume = ["run", "--resume", str(out), "--steps", "14", "--json"]
    assert cli.main(resume) == 2
    assert "--model" in capsys.readouterr().err
    shutil.copytree(tmp_path / "now", tmp_path / "other")
    weights = tmp_path / "other" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    written = (out / "recipe.toml").read_text()
    assert cli.main([*resume, "--model", str(tmp_path / "other")]) == 2
    assert "began with model" in capsys.readouterr().err
    assert (out / "recipe.toml").read_text() == written
    assert cli.main([*resume, "--model", str(tmp_path / "now")]) == 0
    assert report_of(out)["steps"] == 14
    assert str(tmp_path / "now") in (out / "recipe.toml").read_text()
    assert cli.main([*resume[:3], "--steps", "15", "--json"]) == 0  # it is known from now on
