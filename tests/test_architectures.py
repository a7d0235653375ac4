"""Every architecture of docs/reference: transformers' loss, and a result that transformers reads.

A loss is held to 1e-4 of itself: float32 has 1e-7 a number, and sums in another order (an engine's
blocks, other processors) lose up to the root of some ten thousand terms of it; a scale, an offset
or a tensor that is lost moves the loss of these random models by 1e-3 and more.
"""

import json

import architectures
import numpy as np
import pytest

from edge_train import cli
from edge_train.formats.architectures import ENCODERS, LANGUAGE_MODELS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLOSE = 1e-4
LENGTH, CLASSES = 16, 3
# Whole runs of the usual tests: tied and scaled tables, experts, offset positions, a new head,
# weights read without a call. `pytest -m slow` does those of every kind.
RUNS_CLASSIFY = ("bert", "deberta-v2")
RUNS_LANGUAGE = ("gemma3_text", "mixtral", "opt")


def by_speed(kinds, fast):
    return [one if one in fast else pytest.param(one, marks=pytest.mark.slow) for one in kinds]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tokenizer, a text, and labeled texts: the label is a word of the text."""
    root = tmp_path_factory.mktemp("architectures")
    architectures.make_tokenizer(root / "tokenizer.json")
    draw = np.random.default_rng(0)
    # of few words, so that two steps make every network better on the held-out part
    words = [f"w{number}" for number in draw.integers(3, 20, 1200)]
    (root / "text.txt").write_text(" ".join(words))
    rows = [
        (" ".join(words[9 * i : 9 * i + 4 + i % 5]), ("no", "maybe", "yes")[i % 3])
        for i in range(60)
    ]
    (root / "texts.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    return root


def make(place, folder, kind, classes=None):
    architectures.make_model(folder, kind, classes=classes)
    return architectures.with_tokenizer(folder, place / "tokenizer.json")


def test_the_tiny_models_are_those_of_the_reference():
    assert architectures.ENCODERS.keys() == ENCODERS.keys()
    assert architectures.LANGUAGE_MODELS.keys() == LANGUAGE_MODELS.keys()
    assert len(ENCODERS) >= 20 and len(LANGUAGE_MODELS) >= 20


def next_token_loss(network, ids):
    with torch.no_grad():
        logits = network(input_ids=ids[:, :-1], use_cache=False).logits
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))


def logits_of(network, texts, tokenizer):
    """Return the outputs of a batch of texts, padded as any server does it."""
    found = [tokenizer.encode(text).ids for text in texts]
    longest = max(map(len, found))
    pad = network.config.pad_token_id
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in found])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in found])
    with torch.no_grad():
        return network(input_ids=ids, attention_mask=mask).logits


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_the_loss_of_a_language_model_is_that_of_transformers(tmp_path, kind):
    from edge_train.formats.language_folder import open_language_model
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    architectures.make_model(tmp_path, kind)
    ids = np.random.default_rng(0).integers(3, architectures.VOCABULARY, (3, LENGTH + 1))
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    expected = next_token_loss(network, torch.from_numpy(ids))
    folder = open_language_model(tmp_path)
    runtime = TorchLanguageModel.open(folder, quant="none", threads=1, seed=0)
    found = runtime.forward({"ids": ids}, [runtime.parameters])[0].mean()
    assert found == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_an_adapter_stands_beside_every_layer_and_documents_stay_apart(tmp_path, kind):
    from edge_train.formats.adapter import Adapter
    from edge_train.formats.language_apart import keeps_apart
    from edge_train.formats.language_folder import open_language_model
    from edge_train.runtimes.torch.adapted_language_model import AdaptedLanguageModel
    from edge_train.runtimes.torch.adapted_network import linear_layers

    architectures.make_model(tmp_path, kind)
    folder = open_language_model(tmp_path)
    adapter = Adapter("lora", 2, 4.0, linear_layers(folder))
    runtime = AdaptedLanguageModel.open(folder, adapter, quant="none", threads=1, seed=0)
    ids = np.random.default_rng(0).integers(3, architectures.VOCABULARY, (1, LENGTH + 1))
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    expected = next_token_loss(network, torch.from_numpy(ids))
    found = {}
    [loss] = runtime.backward({"ids": ids}, lambda name, value: found.update({name: value}))
    assert loss == pytest.approx(expected, rel=CLOSE)
    assert found.keys() == adapter.shapes().keys()
    for name, value in found.items():
        assert value.any() == name.endswith("lora_B"), name  # B is zero, so A has no gradient yet
    cut = LENGTH // 2
    document = np.array([[0] * cut + [1] * (LENGTH - cut)], np.int32)
    both = {"ids": ids, "document": document}
    if not keeps_apart(kind):  # nobody packs them, and who did is stopped
        with pytest.raises(ValueError, match="reads one document of a sequence in the other"):
            runtime.forward(both, [runtime.parameters])
        return
    halves = (ids[:, : cut + 1], ids[:, cut:])
    alone = [runtime.forward({"ids": half}, [runtime.parameters])[0, 0] for half in halves]
    [[together]] = runtime.forward(both, [runtime.parameters])
    assert together == pytest.approx(np.mean(alone), rel=CLOSE)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_loss_of_a_classifier_is_that_of_transformers(place, tmp_path, kind):
    from tokenizers import Tokenizer

    from edge_train.formats.classifier_folder import open_classifier
    from edge_train.runtimes.torch.classifier import TorchClassifier
    from edge_train.tasks.classify.tokenizer import TextTokenizer

    make(place, tmp_path, kind, CLASSES)
    texts, labels = ["w5 w6 w7", "w9 w8 w7 w6 w5 w4"], np.array([0, 2])
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    logits = logits_of(network, texts, Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    folder = open_classifier(tmp_path)
    runtime = TorchClassifier.open(folder, trainable="all", threads=1)
    tokenizer = TextTokenizer.from_folder(tmp_path, folder.pad, folder.vocabulary)
    found = tokenizer.encode(texts, 7)
    ids, counts = found.ids, found.counts
    mask = (np.arange(7) < counts[:, None]).astype(np.int64)
    batch = {"ids": ids.astype(np.int64), "mask": mask, "labels": labels}
    found = runtime.forward(batch, [runtime.parameters])[0].mean()
    assert found == pytest.approx(float(expected), rel=CLOSE)


def run(task, place, model, out, method, *more):
    data = place / ("text.txt" if task == "language-model" else "texts.csv")
    words = ["run", "--task", task, "--data", str(data), "--model", str(model), "--out", str(out)]
    words += ["--threads", "1", "--steps", "2", "--samples", "4", "--evaluate-every", "1"]
    assert cli.main([*words, "--json", "--lr", "1e-2", "--method", method, *more]) == 0
    return json.loads((out / "report.json").read_text())


@pytest.mark.process
@pytest.mark.parametrize("kind", by_speed(LANGUAGE_MODELS, RUNS_LANGUAGE))
def test_the_saved_language_model_has_the_perplexity_of_the_report(place, tmp_path, kind):
    model = make(place, tmp_path / "model", kind)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    (model / "tokenizer.model").write_bytes(b"pieces")
    more = ("--length", str(LENGTH), "--trainable", "all")
    run("language-model", place, model, tmp_path / "zo", "zo", *more)
    out = tmp_path / "run"
    report = run("language-model", place, model, out, "adamw", *more)
    held = np.fromfile(out / "tokens.bin", "<u2").astype(np.int64)
    held = held[len(held) - len(held) // 10 :]
    starts = range(0, len(held) - LENGTH, LENGTH)[1::2]  # the half that had no part in the choice
    rows = torch.from_numpy(np.stack([held[at : at + LENGTH + 1] for at in starts]))
    network = transformers.AutoModelForCausalLM.from_pretrained(out / "model").eval()
    metrics = report["metrics"]
    assert metrics["scored_tokens"] == rows[:, 1:].numel()
    assert next_token_loss(network, rows) == pytest.approx(metrics["held_out_loss"], rel=CLOSE)
    before = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    assert abs(next_token_loss(before, rows) - metrics["held_out_loss"]) > 1e-3  # it did learn
    here, there = ({path.name for path in one.iterdir()} for one in (model, out / "model"))
    assert here == there


@pytest.mark.process
@pytest.mark.parametrize("kind", by_speed(ENCODERS, RUNS_CLASSIFY))
def test_the_saved_classifier_has_the_accuracy_of_the_report_and_names_its_labels(
    place, tmp_path, kind
):
    from tokenizers import Tokenizer

    model = make(place, tmp_path / "model", kind, 2)  # and a head that the data does not fit
    (model / "added_tokens.json").write_text("{}")
    run("classify", place, model, tmp_path / "zo", "zo", "--new-head", "--length", str(LENGTH))
    out = tmp_path / "run"
    report = run("classify", place, model, out, "adamw", "--new-head", "--length", str(LENGTH))
    assert report["labels"] == ["maybe", "no", "yes"]
    network = transformers.AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    assert network.config.id2label == {0: "maybe", 1: "no", 2: "yes"}
    assert network.config.label2id == {"maybe": 0, "no": 1, "yes": 2}
    lines = (place / "texts.csv").read_text().splitlines()[1:][::10]  # what a run holds out
    texts, labels = zip(*(line.split(",") for line in lines), strict=True)
    tokenizer = Tokenizer.from_file(str(out / "model" / "tokenizer.json"))
    taken = logits_of(network, texts, tokenizer).argmax(-1).tolist()
    right = np.mean(
        [network.config.id2label[n] == label for n, label in zip(taken, labels, strict=True)]
    )
    assert report["metrics"]["scored_examples"] == len(texts)
    assert right == pytest.approx(report["metrics"]["accuracy"])
    here, there = ({path.name for path in one.iterdir()} for one in (model, out / "model"))
    assert here == there
