"""A checkpoint is used only where file, journal and run agree on every word of it."""

import json

import numpy as np
import pytest

from edge_train.errors import RunFolderError
from edge_train.formats.tensor_store import StoredTensors, kinds_of, save_tensors
from edge_train.protocols import StepRecord
from edge_train.records import checkpoint
from edge_train.records.checkpoint import Expected, Snapshot, kinds_of_state
from edge_train.records.past import Past, origin

STEPS = [
    StepRecord(n, 0.5, (float(n),), 2, 0, 1, 1, 0.1, eval=0.9 - n / 10 if n == 1 else None)
    for n in range(4)
]
BLOCK = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint after three steps, best after two, and what is expected of it."""
    past = Past(origin(1.0, "recipe"), 1.0, STEPS)
    two, three = past.at(2), past.at(3)
    best = checkpoint.save_best(tmp_path, 2, two.best_loss, {"w": BLOCK}, two.history)
    now = Snapshot(3, {"w": BLOCK + 1}, {"w": {"first": BLOCK}}, best, three.history)
    state = kinds_of_state(now.state)
    expected = Expected(past, kinds_of(now.parameters), lambda step: state)
    return checkpoint.save(tmp_path, now), expected, now


def test_what_was_saved_is_what_is_expected(saved):
    path, expected, now = saved
    found = checkpoint.load(path, expected)
    assert (found.step, found.best, found.history) == (3, now.best, now.history)


def edited(path, **metadata):
    """Write a file again with other words in its header, under checksums that match."""
    stored = StoredTensors(path)
    save_tensors(path, {n: stored[n] for n in stored}, {**stored.metadata, **metadata})


@pytest.mark.parametrize(
    "metadata",
    [
        {"step": "2"},
        {"step": "many"},
        {"best_step": "0"},
        {"best_loss": (0.1).hex()},
        {"best_loss": "0x1p99999"},
        {"history": "0" * 32},
        {"format": "another"},
    ],
)
def test_a_header_that_cannot_be_right_is_refused(saved, metadata):
    path, expected, _ = saved
    edited(path, **metadata)
    with pytest.raises(RunFolderError):
        checkpoint.load(path, expected)


def test_the_best_of_another_run_is_refused(saved):
    path, expected, now = saved
    edited(now.best.path, history="0" * 32)
    with pytest.raises(RunFolderError, match="other steps"):
        checkpoint.load(path, expected)


def test_arrays_of_another_type_or_shape_are_refused(saved):
    path, expected, _ = saved
    stored = StoredTensors(path)
    save_tensors(path, {n: stored[n].view(np.int32) for n in stored}, stored.metadata)
    with pytest.raises(RunFolderError, match="'parameters/w' is"):
        checkpoint.load(path, expected)


def test_an_edited_header_does_not_match_its_checksum(saved):
    path, _, _ = saved
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(RunFolderError, match="checksum"):
        StoredTensors(path)


def test_an_older_file_has_no_checksum_of_its_header_and_is_read(tmp_path):
    tensors = {"a": BLOCK}
    save_tensors(tmp_path / "t", tensors, {})
    content = (tmp_path / "t").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    del header["__metadata__"]["header_crc32"]
    text = json.dumps(header).encode()
    (tmp_path / "t").write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    assert StoredTensors(tmp_path / "t").kinds == kinds_of(tensors)


def test_checkpoints_of_a_later_step_do_not_outlive_newer_ones(saved):
    path, _, now = saved
    later = Snapshot(1, now.parameters, now.state, now.best, now.history)
    newest = checkpoint.save(path.parent, later)
    assert newest.exists() and not path.exists()


def test_a_folder_in_place_of_a_checkpoint_is_left_out_and_removed(saved):
    path, expected, now = saved
    path.unlink()
    path.mkdir()
    snapshot, complaints = checkpoint.load_newest(path.parent, 4, expected)
    assert snapshot is None and len(complaints) == 1
    assert checkpoint.save(path.parent, now).is_file()
