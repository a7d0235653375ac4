"""A classifier folder is read without an engine; what cannot be used is refused by name."""

import json

import numpy as np
import pytest

from edge_train.errors import ModelError
from edge_train.formats.classifier_folder import open_classifier
from edge_train.formats.tensor_store import save_tensors

CONFIG = {
    "model_type": "bert",
    "vocab_size": 50,
    "max_position_embeddings": 40,
    "id2label": {"1": "good", "0": "bad"},
    "pad_token_id": 3,
}


def write(folder, weights="model.safetensors", tensor="classifier.weight", **changes):
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    if weights.endswith(".safetensors"):
        save_tensors(folder / weights, {tensor: np.zeros(3, np.float32)}, {})
    else:
        (folder / weights).write_bytes(b"")
    return folder


def test_numbers_come_from_the_configuration(tmp_path):
    found = open_classifier(write(tmp_path))
    assert (found.labels, found.vocabulary, found.positions, found.pad) == (
        ("bad", "good"),
        50,
        40,
        3,
    )
    assert len(found.sha256()) == 64


def test_some_networks_lose_positions_to_the_padding(tmp_path):
    assert open_classifier(write(tmp_path, model_type="roberta", pad_token_id=1)).positions == 38


def test_outputs_without_names_are_two_unless_the_configuration_counts_them(tmp_path):
    assert open_classifier(write(tmp_path, id2label=None)).labels == ("LABEL_0", "LABEL_1")
    assert len(open_classifier(write(tmp_path, id2label=None, num_labels=5)).labels) == 5


@pytest.mark.parametrize(
    ("architecture", "tensor", "has_head"),
    [
        ("BertForSequenceClassification", "classifier.weight", True),
        ("BertForTokenClassification", "classifier.weight", False),
        ("BertModel", "encoder.weight", False),
        ("LlamaForCausalLM", "lm_head.weight", False),
        ("BertForSequenceClassification", "bert.encoder.weight", False),
    ],
)
def test_a_head_is_one_for_classes_of_texts(tmp_path, architecture, tensor, has_head):
    found = open_classifier(write(tmp_path, tensor=tensor, architectures=[architecture]))
    assert found.has_head is has_head
    new = found.with_labels(["a", "b", "c"])
    assert (new.labels, new.has_head) == (("a", "b", "c"), False)


@pytest.mark.parametrize("architectures", [float("-inf"), 3, "BertForSequenceClassification", {}])
def test_architectures_that_are_no_list_promise_no_head(tmp_path, architectures):
    folder = write(tmp_path, tensor="encoder.weight", architectures=architectures)
    assert not open_classifier(folder).has_head


def test_the_first_of_several_end_tokens_fills_short_texts(tmp_path):
    changed = {"pad_token_id": None, "eos_token_id": [7, 9]}
    assert open_classifier(write(tmp_path, **changed)).pad == 7


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vocab_size": None}, "a value is missing or of a wrong type \\('vocab_size'\\)"),
        ({"vocab_size": "many"}, "wrong type"),
        ({"quantization_config": {"quant_method": "gptq"}}, "packed by gptq"),
        ({"weights": "pytorch_model.bin"}, "a pickle file"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, changes, sentence):
    with pytest.raises(ModelError, match=sentence):
        open_classifier(write(tmp_path, **changes))


def test_other_folders_are_named_for_what_they_are(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_classifier(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="is a Stable Diffusion folder"):
        open_classifier(tmp_path)
