"""What training changed, as adapters: peft reads them, and they are the nearest of their rank."""

import json

import numpy as np
import pytest
from classifiers import make_data, make_tiny_classifier
from safetensors.numpy import load_file, save_file

from edge_train import cli
from edge_train.export.difference import write_difference
from edge_train.formats.tensor_file import StoredTensor, TensorFile
from edge_train.protocols import Layer

RANK = 3
pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers, at what peft reads
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings"),  # merging is not our aim
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set"),  # GPT-2 has layers of both kinds
]


def layers_and_weights(tmp_path):
    """Return layers of every kind, their blocks after training, and where they were before."""
    draw = np.random.default_rng(0)
    shapes = {"tall": (40, 12), "wide": (12, 40), "table": (30, 10), "turned": (20, 8), "v": (40,)}
    before = {
        name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    after = {}
    for name, value in before.items():
        change = draw.standard_normal(value.shape)
        if value.ndim == 2:  # some directions stand out
            change = (
                draw.standard_normal((len(value), 5))
                * [9, 7, 5, 1, 0.5]
                @ draw.standard_normal((5, value.shape[1]))
            )
        after[name] = (value + change).astype(np.float32)
    save_file(before, tmp_path / "base.safetensors")
    file = TensorFile(tmp_path / "base.safetensors")
    stored = {name: StoredTensor(file, name) for name in shapes}
    layers = [
        Layer("a.tall", "linear", {"weight": "tall", "bias": "v"}),
        Layer("a.wide", "linear", {"weight": "wide"}),
        Layer("b.table", "embedding", {"weight": "table"}),
        Layer("b.turned", "conv1d", {"weight": "turned"}),
    ]
    return layers, before, after, stored


def test_each_product_is_the_nearest_of_its_rank_to_what_changed(tmp_path):
    layers, before, after, stored = layers_and_weights(tmp_path)
    words = {"rank": RANK, "task_type": "CAUSAL_LM", "base": "base"}
    kept = write_difference(tmp_path / "out", layers, after, stored, **words)
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    whole = held = 0.0
    for layer in layers:
        name = layer.blocks["weight"]
        ends = ("lora_A.weight", "lora_B.weight")
        if layer.kind == "embedding":
            ends = ("lora_embedding_A", "lora_embedding_B")
        first, second = (found[f"base_model.model.{layer.path}.{end}"] for end in ends)
        product = second @ first if layer.kind == "linear" else (second @ first).T
        change = after[name] - before[name]
        values = np.linalg.svd(change, compute_uv=False)
        best = np.sqrt(np.square(values[RANK:]).sum())
        assert np.linalg.norm(change - product) <= 1.001 * best
        whole += np.square(values).sum()
        held += np.square(values[:RANK]).sum()
    assert kept == pytest.approx(held / whole, rel=1e-3)
    np.testing.assert_array_equal(found["base_model.model.a.tall.base_layer.bias"], after["v"])


def test_what_the_base_does_not_have_is_kept_whole_and_no_change_is_zero(tmp_path):
    layers, before, _, stored = layers_and_weights(tmp_path)
    del stored["table"]
    words = {"rank": RANK, "task_type": "SEQ_CLS", "base": "base"}
    assert write_difference(tmp_path / "out", layers, before, stored, **words) == 1.0
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    np.testing.assert_array_equal(found["base_model.model.b.table.weight"], before["table"])
    for path in ("a.tall", "a.wide"):
        first, second = (found[f"base_model.model.{path}.lora_{end}.weight"] for end in "AB")
        assert not np.any(second @ first)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["b.table"]


_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 300,
    "max_position_embeddings": 32,
}
_GPT2 = {
    "model_type": "gpt2",
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "vocab_size": 300,
    "n_positions": 32,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("the cat sat on the mat and the dog sat on the cat\n" * 200)
    return path


def language_model(folder, config, text):
    """Make a folder of random weights."""
    transformers = pytest.importorskip("transformers")
    from edge_train.bench.small_llama import write_folder

    write_folder(folder, text, 300)
    network = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**{**config, "bos_token_id": 0, "eos_token_id": 0})
    )
    network.save_pretrained(folder)
    return folder


def left_of_the_change(kind, model, run):
    """Return how far peft's outputs are from the trained model's, by how far the base's are."""
    import torch

    peft = pytest.importorskip("peft")
    ids = torch.arange(3, 13)[None]
    base, trained = kind.from_pretrained(model), kind.from_pretrained(run / "model")
    with torch.no_grad():
        start, wanted = base(ids).logits, trained(ids).logits
        found = peft.PeftModel.from_pretrained(base, run / "difference")(ids).logits
    return float((found - wanted).norm() / (wanted - start).norm())


@pytest.mark.parametrize("config", [_LLAMA, _GPT2], ids=["llama", "gpt2, tied and turned"])
def test_peft_computes_what_the_trained_language_model_does(tmp_path, text, config):
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = language_model(tmp_path / "model", config, text)
    words = ["run", "--task", "language-model", "--data", str(text), "--model", str(model)]
    words += ["--threads", "1", "--json", "--length", "16", "--steps", "15", "--lr", "1e-2"]
    words += ["--method", "adamw", "--difference-rank", "31", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["outputs"]["difference"] == "difference"
    captured = report["metrics"]["difference_captured"]
    assert 0.99 < captured < 1
    # The part of the weights' change that rank 31 of 32 leaves out, in norm. Outputs may weigh it
    # more than the rest (2 times in twelve draws); a factor turned or scaled wrongly leaves 1.
    left_out = (1 - captured) ** 0.5
    assert left_of_the_change(AutoModelForCausalLM, model, tmp_path / "run") < 10 * left_out < 0.5


def test_peft_computes_what_the_trained_classifier_does(tmp_path):
    pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    data = make_data(tmp_path / "data")
    model = make_tiny_classifier(tmp_path / "model", data)
    words = ["run", "--task", "classify", "--data", str(data), "--model", str(model)]
    words += ["--threads", "1", "--steps", "40", "--lr", "3e-3", "--json", "--method", "q-galore"]
    words += ["--rank", "4", "--difference-rank", "8", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["eval"]["best"] < report["eval"]["first"]  # else nothing changed
    assert report["metrics"]["difference_captured"] > 0.9  # what galore changes is of low rank
    assert left_of_the_change(AutoModelForSequenceClassification, model, tmp_path / "run") < 0.3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--difference-rank", "400"), "use a --difference-rank of at most 31"),
        (("--difference-rank", "0"), "difference_rank is 0, must be from 1"),
        (("--difference-rank", "4", "no weights"), "holds no weights to compare with"),
    ],
)
def test_what_cannot_be_written_is_refused_before_training(
    tmp_path, text, capsys, change, sentence
):
    pytest.importorskip("torch")
    model = language_model(tmp_path / "model", _LLAMA, text)
    if "no weights" in change:
        (model / "model.safetensors").unlink()
    words = ["run", "--task", "language-model", "--data", str(text), "--model", str(model)]
    assert cli.main([*words, "--out", str(tmp_path / "run"), *change[:2]]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
