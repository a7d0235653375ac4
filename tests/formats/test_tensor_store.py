"""Small tensor files are whole or absent, and damage is noticed."""

import os

import numpy as np
import pytest
import safetensors.numpy

from edge_train.errors import RunFolderError
from edge_train.formats.atomic import write_bytes
from edge_train.formats.tensor_store import (
    StoredTensors,
    load_tensors,
    save_tensors,
    to_safetensors,
)

TENSORS = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([7])}


def test_arrays_and_metadata_read_back(tmp_path):
    save_tensors(tmp_path / "t", TENSORS, {"step": "3"})
    tensors, metadata = load_tensors(tmp_path / "t")
    assert metadata == {"step": "3"}
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path):
    save_tensors(tmp_path / "t", TENSORS, {"step": "3"})
    content = (tmp_path / "t").read_bytes()
    for position in range(len(content) - 1, len(content) - 32, -1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        (tmp_path / "bad").write_bytes(damaged)
        with pytest.raises(RunFolderError):
            load_tensors(tmp_path / "bad")
    for cut in (0, 5, 60, len(content) - 1):
        (tmp_path / "bad").write_bytes(content[:cut])
        with pytest.raises(RunFolderError):
            load_tensors(tmp_path / "bad")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_bytes(tmp_path / "f", b"old")
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_bytes(tmp_path / "missing" / "f", b"new")
    (tmp_path / f".f.{os.getpid()}.partial").mkdir()  # the temporary name is taken by a folder
    with pytest.raises((RunFolderError, OSError)):
        write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"


def test_the_same_content_gives_the_same_bytes_that_the_official_reader_reads():
    metadata = {str(key): "ä" * key for key in range(9)}
    content = to_safetensors(TENSORS, metadata)
    assert content == to_safetensors(dict(reversed(TENSORS.items())), metadata)
    found = safetensors.numpy.load(content)
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "i8", "i4", "i1", "u1", "?"])
def test_every_type_survives(kind):
    value = np.arange(5).astype(kind)
    np.testing.assert_array_equal(
        safetensors.numpy.load(to_safetensors({"x": value}, {}))["x"], value
    )


def test_stored_tensors_are_read_one_at_a_time_and_checked_as_a_whole(tmp_path):
    path = tmp_path / "some.safetensors"
    tensors = {
        "b": np.arange(6, dtype=np.int8).reshape(2, 3),
        "a": np.ones(3, np.float32),
        "c": np.array(7, np.int64),
    }
    save_tensors(path, tensors, {"step": "3"})
    stored = StoredTensors(path)
    assert list(stored) == ["a", "b", "c"] and stored.metadata == {"step": "3"}
    for name, value in tensors.items():
        np.testing.assert_array_equal(stored[name], value)
        assert stored[name].dtype == value.dtype
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="checksum"):
        StoredTensors(path)
    path.write_bytes(content[:-1])
    with pytest.raises(RunFolderError):
        StoredTensors(path)
