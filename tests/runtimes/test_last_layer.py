"""What runtimes tell of their last layer is what torch differentiates, sample by sample."""

import json

import numpy as np
import pytest
from classifiers import make_data, make_tiny_classifier
from gguf_files import Q8_0
from gguf_models import make_gguf

from edge_train.formats.adapter import Adapter, Target
from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.gguf.model import open_gguf
from edge_train.formats.language_folder import open_language_model
from edge_train.protocols import TellsLastLayer
from edge_train.runtimes.numpy.decoder import decoder_of
from edge_train.runtimes.numpy.language_model import NumpyLanguageModel

pytest.importorskip("torch")

import torch

from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
from edge_train.runtimes.torch.classifier import TorchClassifier
from edge_train.runtimes.torch.language_model import TorchLanguageModel
from edge_train.runtimes.torch.last_layer import output_layer
from edge_train.runtimes.torch.lora import TorchLora

CLOSE = 1e-4  # products of float32 in another order
KINDS = {
    "llama": {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 60,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
    },
    "gemma2": {  # caps its logits
        "model_type": "gemma2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "vocab_size": 60,
        "max_position_embeddings": 64,
        "final_logit_softcapping": 3.0,
        "initializer_range": 0.1,
    },
}


def formed(found, shape):
    """Return the gradient of each sample, from its factors."""
    each = np.zeros((len(found.losses), *shape), np.float32)
    for sample, error, entered in zip(found.samples, found.errors, found.inputs, strict=True):
        each[sample] += np.outer(error, entered)
    return each


@pytest.fixture(scope="module", params=["bert", "roberta"])
def classifier(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    data = make_data(folder / "data")
    return open_classifier(make_tiny_classifier(folder / "model", data, request.param))


def texts():
    draw = np.random.default_rng(0)
    counts = np.array([9, 3, 12, 5, 7])
    return {
        "ids": draw.integers(5, 60, (5, 12)),
        "mask": (np.arange(12) < counts[:, None]).astype(np.int64),
        "labels": np.array([0, 1, 1, 0, 1]),
        "smoothing": np.full(5, 0.1, np.float32),
        "weights": np.array([1.0, 2.0, 2.0, 1.0, 2.0], np.float32),
    }


@pytest.mark.parametrize("lora", [False, True])
def test_a_classifiers_factors_are_the_gradients_of_its_output_layer(classifier, lora):
    if lora:
        model = TorchLora.open_adapted(classifier, rank=2, scale=2.0, threads=1)
    else:
        model = TorchClassifier.open(classifier, trainable="all", threads=1)
    assert isinstance(model, TellsLastLayer)
    model.batch_limit = 2
    batch = texts()
    found = model.last_layer(batch)
    np.testing.assert_allclose(
        found.losses, model.forward(batch, [model.parameters])[0], rtol=CLOSE
    )
    names = {id(own): name for name, own in model._network.named_parameters()}
    name = names[id(output_layer(model._network).weight)]
    wanted = np.empty((5, *model.last_layer_shape), np.float32)
    for row in range(5):
        gradients = {}
        own = {part: values[row : row + 1] for part, values in batch.items()}
        model.backward(own, lambda n, g, kept=gradients: kept.__setitem__(n, g.copy()))
        wanted[row] = gradients[name]
    np.testing.assert_allclose(formed(found, model.last_layer_shape), wanted, rtol=CLOSE, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_models_factors_are_the_gradients_of_a_layer_before_its_head(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps(KINDS[kind]))
    folder = open_language_model(tmp_path, "tiny")
    model = TorchLanguageModel.open(folder, quant="none", threads=1, seed=1)
    assert isinstance(model, TellsLastLayer)
    assert model.last_layer_shape == (32, 32)
    draw = np.random.default_rng(0)
    weight = draw.random((5, 9), np.float32) * (draw.random((5, 9)) > 0.3)
    batch = {"ids": draw.integers(0, 60, (5, 10)), "weight": weight.astype(np.float32)}
    model.batch_limit = 2
    found = model.last_layer(batch)
    losses = model.forward(batch, [model.parameters])[0]
    np.testing.assert_allclose(found.losses, losses, rtol=CLOSE)

    hidden = model._hidden(torch.from_numpy(batch["ids"])[:, :-1], None).detach()
    head = torch.from_numpy(model.parameters[model._halves.head.block])
    cap = KINDS[kind].get("final_logit_softcapping")
    for row in range(5):
        square = torch.eye(32, requires_grad=True)
        logits = hidden[row] @ square.T @ head.T
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        targets = torch.from_numpy(batch["ids"][row, 1:])
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        (each * torch.from_numpy(batch["weight"][row])).sum().backward()
        own = formed(found, (32, 32))[row]
        assert np.linalg.norm(own - square.grad.numpy()) <= CLOSE * np.linalg.norm(own)


def test_both_engines_tell_the_same_of_an_adapted_model(tmp_path):
    make_gguf(tmp_path / "model.gguf", "smollm", Q8_0)
    folder = open_gguf(tmp_path / "model.gguf")
    entries = folder.files[0].entries
    paths = decoder_of(folder.config, folder.path).linear_layers()
    targets = tuple(Target(path, *entries[f"{path}.weight"].shape) for path in paths)
    adapter = Adapter("lora", 2, 8.0, targets)
    draw = np.random.default_rng(0)
    blocks = {
        name: (0.1 * draw.standard_normal(shape)).astype(np.float32)
        for name, shape in adapter.shapes().items()
    }
    ours = NumpyLanguageModel.open(folder, adapter, seed=0, blocks=blocks)
    theirs = AdaptedLanguageModel.open(
        folder, adapter, quant="none", threads=1, seed=0, blocks=blocks
    )
    ids = draw.integers(0, folder.vocabulary, (5, 12))
    batch = {"ids": ids, "weight": (np.arange(55).reshape(5, 11) % 3 > 0).astype(np.float32)}
    assert ours.last_layer_shape == theirs.last_layer_shape
    found = []
    for model in (ours, theirs):
        model.batch_limit = 2
        found.append(model.last_layer(batch))
        losses = model.forward(batch, [model.parameters])[0]
        np.testing.assert_allclose(found[-1].losses, losses, rtol=CLOSE)
    np.testing.assert_array_equal(found[0].samples, found[1].samples)
    for name in ("losses", "inputs", "errors"):
        own, other = (getattr(one, name) for one in found)
        assert np.linalg.norm(own - other) <= 1e-3 * np.linalg.norm(other), name
