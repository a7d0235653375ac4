"""The file of learned tasks: its bytes are fixed, and nothing in it is believed."""

import json

import numpy as np
import places
import pytest

from edge_train.errors import RunFolderError
from edge_train.formats import learned_tasks
from edge_train.formats.learned_tasks import Directions, LearnedTask, LearnedTasks
from edge_train.formats.tensor_store import load_tensors, save_tensors

GOLDEN = places.ROOT / "tests" / "golden" / "tasks.safetensors"


def example():
    inputs = np.arange(24, dtype=np.uint8).reshape(4, 6)
    first = LearnedTask("a.npz", (0, 1), "ab", (0.75,), inputs, np.array([0, 1, 1, 0]))
    nothing = LearnedTask("b.npz", (2, 3), "cd", (None, 0.5), inputs[:0], np.zeros(0, np.int64))
    codes = np.array([[127, 0, 1], [0, 127, -127], [3, -2, 127]], np.int8)
    owned = np.array([[True, True, False], [False, True, True]])
    gradients = (np.ones((2, 2), np.float32), np.full((2, 2), 0.5, np.float32))
    scale = np.array([0.01, 0.02, 0.03], np.float32)
    return LearnedTasks((first, nothing), {"0.weight": Directions(codes, scale, owned, gradients)})


def test_the_file_has_the_bytes_of_the_first_version_and_reads_as_it_was(tmp_path):
    learned_tasks.save(tmp_path / "tasks.safetensors", example())
    assert (tmp_path / "tasks.safetensors").read_bytes() == GOLDEN.read_bytes()
    found, made = learned_tasks.load(GOLDEN), example()
    assert [one.scores for one in found.tasks] == [one.scores for one in made.tasks]
    assert [one.classes for one in found.tasks] == [(0, 1), (2, 3)]
    (a,), (b,) = found.directions.values(), made.directions.values()
    for one, other in ((a.codes, b.codes), (a.owned, b.owned), *zip(a.gradients, b.gradients)):  # noqa: B905
        assert one.dtype == other.dtype and (one == other).all()
    assert found.nbytes == 9 + 12 + 6 + 32


CHANGES = {
    "no list": {"tasks": "7"},
    "deep": {"tasks": "[" * 5000},
    "no classes": {"classes": []},
    "negative": {"classes": [-1, 0]},
    "scores": {"scores": [0.5, 0.5]},
    "other matrices": {"matrices": '["9.weight"]'},
    "later": {"format": "edge-train tasks 2"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_words_that_cannot_be_are_one_sentence(tmp_path, change):
    tensors, metadata = load_tensors(GOLDEN)
    for name, value in change.items():
        if name in metadata:
            metadata[name] = value
        else:
            said = json.loads(metadata["tasks"])
            said[0][name] = value
            metadata["tasks"] = json.dumps(said)
    save_tensors(tmp_path / "x", tensors, metadata)
    with pytest.raises(RunFolderError, match=r"damaged|format"):
        learned_tasks.load(tmp_path / "x")


ARRAYS = {
    "directions/0.weight/codes": np.zeros((2, 3), np.int8),
    "directions/0.weight/scale": np.array([1, np.nan, 1], np.float32),
    "directions/0.weight/owned": np.ones((2, 2), np.bool_),
    "gradients/1/0.weight": np.ones((2, 3), np.float32),
    "kept/0/labels": np.array([0, 1, 7, 0]),
    "kept/0/inputs": np.zeros((3, 6), np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_one_sentence(tmp_path, name):
    tensors, metadata = load_tensors(GOLDEN)
    save_tensors(tmp_path / "x", {**tensors, name: ARRAYS[name]}, metadata)
    with pytest.raises(RunFolderError, match="damaged"):
        learned_tasks.load(tmp_path / "x")
    del tensors[name]
    save_tensors(tmp_path / "x", tensors, metadata)
    with pytest.raises(RunFolderError, match="damaged"):
        learned_tasks.load(tmp_path / "x")


def test_a_flipped_byte_is_noticed(tmp_path):
    content = bytearray(GOLDEN.read_bytes())
    content[-3] ^= 1
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(RunFolderError, match="checksum"):
        learned_tasks.load(tmp_path / "x")
