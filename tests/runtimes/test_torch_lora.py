"""Adapters and points: peft reads what we write, and every module computes at its own point."""

import json
from types import SimpleNamespace

import architectures
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import transformers

from edge_train.estimators.zo import ZerothOrder
from edge_train.export.classifier_files import write_classifier
from edge_train.export.result_texts import write_texts
from edge_train.formats.classifier_folder import open_classifier
from edge_train.rng import Key
from edge_train.runtimes.torch.classifier import TorchClassifier

KINDS = ("bert", "roberta", "gpt2", "llama")
# Kinds of which peft knows no projections; the heads of the last two have names of their own.
LINEAR = ("distilbert", "modernbert", "mpnet", "xlnet")
SAME = 1e-5  # two orders of summation in float32


def make(folder, kind):
    """Write a classifier of a few thousand weights with random ones."""
    sizes = {"vocab_size": 60, "num_labels": 2, "pad_token_id": 1}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=24, **sizes)
    else:
        kinds = {
            "bert": transformers.BertConfig,
            "roberta": transformers.RobertaConfig,
            "llama": transformers.LlamaConfig,
        }
        config = kinds[kind](
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=24,
            **sizes,
        )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = transformers.AutoModelForSequenceClassification.from_config(config)
    network.save_pretrained(folder)
    return open_classifier(folder)


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    return make(tmp_path / "model", request.param)


@pytest.fixture(params=[*KINDS, *LINEAR])
def adaptable(request, tmp_path):
    if request.param in KINDS:
        return make(tmp_path / "model", request.param)
    architectures.make_model(tmp_path / "model", request.param, classes=2)
    return open_classifier(tmp_path / "model")


def batch(count=5, length=9):
    draw = np.random.default_rng(5)
    counts = draw.integers(2, length + 1, count)
    mask = (np.arange(length) < counts[:, None]).astype(np.int64)
    ids = np.where(mask, draw.integers(5, 60, (count, length)), 1)
    return {"ids": ids, "mask": mask, "labels": draw.integers(0, 2, count)}


def logits_of(network, given):
    with torch.no_grad():
        output = network.eval()(
            input_ids=torch.from_numpy(given["ids"]),
            attention_mask=torch.from_numpy(given["mask"]),
        )
    return output.logits.numpy()


def moved(parameters):
    draw = np.random.default_rng(2)
    return {
        name: block + draw.normal(0, 0.3, block.shape).astype(np.float32)
        for name, block in parameters.items()
    }


def test_a_point_is_computed_as_if_its_blocks_were_the_network_s_own(folder):
    runtime = TorchClassifier.open(folder, trainable="all", threads=1)
    given, before = batch(), runtime.parameters.copy()
    direction = ZerothOrder(0.1, dict.fromkeys(before, 1.0))
    point = direction.perturbed(runtime.parameters, Key(0, 1), 0, 0.05)
    here, there = runtime.logits(given, runtime.parameters), runtime.logits(given, point)
    losses = runtime.forward(given, [runtime.parameters, point])
    for name, block in before.items():
        np.testing.assert_array_equal(runtime.parameters[name], block)
    runtime.parameters.load({name: point[name].copy() for name in before})
    own = runtime.parameters
    np.testing.assert_array_equal(runtime.logits(given, own), there)
    np.testing.assert_array_equal(runtime.forward(given, [own])[0], losses[1])
    assert np.abs(here - there).max() > 0.01


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, at what peft reads
def test_peft_and_transformers_read_what_was_learned(adaptable, tmp_path):
    folder = adaptable
    peft = pytest.importorskip("peft")
    from edge_train.runtimes.torch.lora import TorchLora

    runtime = TorchLora.open_adapted(folder, rank=4, scale=1.5, threads=1)
    given = batch()
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder.path)
    start = runtime.logits(given, runtime.parameters)
    np.testing.assert_allclose(start, logits_of(plain, given), rtol=0, atol=SAME)
    point = moved(runtime.parameters)
    learned = runtime.logits(given, point)
    assert np.abs(learned - start).max() > 0.05
    runtime.save_adapter(tmp_path / "adapter", point)
    write_texts(folder.path, tmp_path / "merged", {})
    write_classifier(tmp_path / "merged", runtime.weights(point))
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(folder.path.resolve())
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    np.testing.assert_allclose(logits_of(adapted, given), learned, rtol=0, atol=SAME)
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(logits_of(merged, given), learned, rtol=0, atol=10 * SAME)


def test_adapters_start_from_the_same_numbers_and_leave_the_global_draw_alone(tmp_path):
    pytest.importorskip("peft")
    from edge_train.runtimes.torch.lora import TorchLora

    folder = make(tmp_path / "model", "bert")
    state = torch.random.get_rng_state()
    first, second = (
        TorchLora.open_adapted(folder, rank=4, scale=1.0, threads=1).parameters for _ in range(2)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    for name, block in first.items():
        np.testing.assert_array_equal(block, second[name])
        if ".lora_A." in name:
            assert 0 < np.abs(block).max() <= 32**-0.5
    assert {block.shape for name, block in first.items() if "lora" in name} == {(4, 32), (32, 4)}


def test_norms_are_the_vectors_and_the_head(tmp_path):
    folder = make(tmp_path / "model", "bert")
    parameters = TorchClassifier.open(folder, trainable="norms", threads=1).parameters
    matrices = [name for name, block in parameters.items() if block.ndim > 1]
    assert matrices == ["classifier.weight"]
    assert "bert.encoder.layer.0.output.LayerNorm.weight" in parameters


def test_weights_that_are_read_past_their_module_are_moved_for_the_whole_pass():
    """As DeBERTa reads its relative positions, and T5 a table that two halves share."""

    class Bypassed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(60, 2)
            self.again = self.table

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=self.table.weight[input_ids[:, 0]])

    from edge_train.arrays.parameters import Parameters

    network = Bypassed()
    weight = network.table.weight.detach().numpy()
    runtime = TorchClassifier(network, Parameters.sharing({"table.weight": weight}))
    given, point = batch(), {"table.weight": weight + 1}
    for _ in range(2):  # the first finds out, the second knows
        np.testing.assert_array_equal(
            runtime.logits(given, point), (weight + 1)[given["ids"][:, 0]]
        )
    np.testing.assert_array_equal(
        runtime.logits(given, runtime.parameters), weight[given["ids"][:, 0]]
    )
