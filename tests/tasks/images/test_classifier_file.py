"""A classifier's file: every version that was written is read, and a damaged one is refused."""

from dataclasses import replace

import numpy as np
import pytest
from places import TESTS

from edge_train.errors import RunFolderError
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.tasks.images.answering import Answering
from edge_train.tasks.images.classifier_file import load_classifier
from edge_train.tasks.images.heads import Shape, heads, stages_of
from edge_train.tasks.images.started import learned_values

FILE = TESTS / "golden" / "image-classifier-v1.safetensors"


def test_the_first_version_is_read_and_written_byte_for_byte(tmp_path):
    found = load_classifier(FILE)
    assert (found.head, found.classes, found.side) == ("tversky", ("cat", "dog"), 224)
    near, far = Answering(found).answers(np.array([[2, 2, 3], [1, 2, 9]], np.float32))
    assert (near.label, near.is_known, near.nearness) == ("cat", True, 1.0)
    assert near.probability == pytest.approx(0.66248, abs=1e-4)
    assert (far.is_known, far.nearness) == (False, 0.0)
    found.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == FILE.read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "2"),
        ("size", "5"),
        ("size", "many"),
        ("classes", '["cat"]'),
        ("classes", "cat"),
        ("scale", ""),
    ],
)
def test_a_file_whose_words_do_not_fit_its_arrays_is_refused(key, value, tmp_path):
    tensors, about = load_tensors(FILE)
    save_tensors(tmp_path / "wrong.safetensors", tensors, {**about, key: value})
    with pytest.raises(RunFolderError, match="is no classifier of pictures"):
        load_classifier(tmp_path / "wrong.safetensors")


def test_what_was_learned_of_a_class_is_found_by_its_name():
    before = load_classifier(FILE)
    shape = type(before.shape)(width=3, classes=3, size=4, difference="subtractmatch")
    [stage] = stages_of(heads.get("tversky"), shape)
    start = {f"tversky.{n}": np.zeros(s, np.float32) for n, s in stage.shapes().items()}
    found = learned_values(before, start, "tversky", shape, ("ant", "cat", "dog"))
    old = before.parameters["tversky.prototypes"]
    np.testing.assert_array_equal(found["tversky.prototypes"][1:], old)
    assert not found["tversky.prototypes"][0].any()
    np.testing.assert_array_equal(found["tversky.bank"], before.parameters["tversky.bank"])


@pytest.mark.parametrize(("head", "size"), [("tversky", 3), ("two-layer", 3), ("cosine", 1)])
def test_only_rows_of_classes_go_by_their_names(head, size):
    """A bank, a hidden layer or three weights may be as long as there are classes."""
    shape = Shape(width=4, classes=3, size=size)
    stages = stages_of(heads.get(head), shape)
    draw = np.random.default_rng(0)
    names = {f"{one.name}.{n}": sides for one in stages for n, sides in one.shapes().items()}
    learned = {n: draw.standard_normal(s).astype(np.float32) for n, s in names.items()}
    before = replace(
        load_classifier(FILE), head=head, shape=shape, parameters=learned, classes=tuple("abc")
    )
    start = {name: np.zeros(sides, np.float32) for name, sides in names.items()}
    found = learned_values(before, start, head, shape, tuple("xab"))
    of_classes = {"tversky.prototypes", "linear.weight", "linear.bias", "cosine.prototypes"}
    for name, values in found.items():
        if name in of_classes:
            np.testing.assert_array_equal(values[1:], learned[name][:2])
            assert not values[0].any()
        else:
            np.testing.assert_array_equal(values, learned[name])
