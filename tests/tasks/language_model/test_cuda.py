"""Language models on a real card: `make test-gpu`. Left out where torch sees none."""

import json
import shutil
import signal

import numpy as np
import pytest
from byte_tokenizer import save_byte_tokenizer
from running import Command, run_to_the_end

pytest.importorskip("torch")

import torch
import transformers

from edge_train.arrays.factored import dense
from edge_train.formats.adapter import Adapter
from edge_train.formats.language_folder import open_language_model
from edge_train.memory.gpu import open_gpu_memory
from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel, linear_layers
from edge_train.runtimes.torch.language_model import TorchLanguageModel

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no card"),
]

# Products in float32 on both (torch leaves TF32 off), summed in other orders over 256 numbers, a
# dozen one after the other; relative to the largest number of a block.
SAME = 1e-3
_SIZES = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "vocab_size": 300,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text, and a model folder with random weights in it."""
    root = tmp_path_factory.mktemp("card")
    (root / "text.txt").write_text("the cat sat on the mat and the dog sat on the cat\n" * 2000)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SIZES))
    network.save_pretrained(root / "model")
    save_byte_tokenizer(root / "model", root / "text.txt")
    return root


def opened(folder, what, quant, device):
    words = {"quant": quant, "threads": 1, "seed": 3, "device": device}
    if what == "all":
        return TorchLanguageModel.open(folder, **words)
    adapter = Adapter(what, 4, 8.0, linear_layers(folder), base="base")
    return AdaptedLanguageModel.open(folder, adapter, **words)


def gradients(runtime, batch):
    found = {}
    found["losses"] = runtime.backward(
        batch, lambda name, value: found.update({name: np.array(dense(value))})
    )
    return found


@pytest.mark.parametrize("quant", ["none", "int8", "int4"])
@pytest.mark.parametrize("what", ["all", "lora", "dora"])
def test_gradients_on_a_card_are_those_of_the_host_and_repeat(place, what, quant):
    folder = open_language_model(place / "model")
    batch = {"ids": np.random.default_rng(1).integers(1, 280, (2, 65))}
    expected = gradients(opened(folder, what, quant, "cpu"), batch)
    runtime = opened(folder, what, quant, "cuda")
    found, again = gradients(runtime, batch), gradients(runtime, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        most = SAME * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=most, err_msg=name)
        np.testing.assert_array_equal(found[name], again[name], err_msg=name)


def words(place, out, *more):
    found = ["run", "--task", "language-model", "--data", place / "text.txt", "--json"]
    found += ["--model", place / "model", "--device", "cuda", "--length", "64", "--samples", "4"]
    return [*found, "--steps", "30", "--out", out, *more]


@pytest.mark.parametrize("what", ["all", "lora"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(place, tmp_path, what):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_to_the_end(*words(place, whole, "--trainable", what), out=whole)
    with Command(*words(place, killed, "--trainable", what), out=killed) as command:
        command.wait_for_steps(5)
        command.send(signal.SIGKILL)
        command.wait()
    run_to_the_end("run", "--resume", killed, "--json", out=killed)
    reports = [json.loads((out / "report.json").read_text()) for out in (whole, killed)]
    assert [report["device"] for report in reports] == ["cuda", "cuda"]
    assert reports[0]["eval"] == reports[1]["eval"]


def test_what_a_run_holds_on_a_card_is_the_drivers_count_and_below_its_cap(place, tmp_path):
    if open_gpu_memory() is None:
        pytest.skip("no NVIDIA driver counts here")
    out = tmp_path / "run"
    run_to_the_end(*words(place, out, "--mem", "4GB", "--trainable", "lora"), out=out)
    report = json.loads((out / "report.json").read_text())
    assert 100_000_000 < report["measured_peak_bytes"] <= 4_000_000_000  # a context alone is more


def test_a_cap_that_a_card_run_does_not_fit_in_stops_it_with_a_sentence(place, tmp_path):
    out = tmp_path / "run"
    with Command(*words(place, out, "--mem", "20MB", "--trainable", "lora"), out=out) as command:
        command.wait()
        assert command.process.returncode in (2, 3)
        assert "Traceback" not in command.err and "--mem" in command.err
    shutil.rmtree(out, ignore_errors=True)
