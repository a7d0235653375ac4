"""A file of directions is read as it was written, or refused in a sentence that says what to do."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from edge_train.errors import ModelError
from edge_train.formats.tensor_store import load_metadata, load_tensors, save_tensors
from edge_train.formats.token_directions import FORMAT, read_directions, write_directions

ROWS = np.arange(1, 9, dtype=np.float32).reshape(2, 4)


def written(folder, rows=ROWS):
    path = folder / "directions.safetensors"
    write_directions(path, {"metric": {"token": rows}}, "abc", "{}")
    return path


def test_what_was_written_is_read(tmp_path):
    assert read_directions(written(tmp_path), "metric", "abc")["token"].tolist() == ROWS.tolist()
    assert load_metadata(tmp_path / "directions.safetensors")["format"] == FORMAT


@pytest.mark.parametrize(
    ("kind", "model", "says"),
    [
        ("prior", "abc", "no directions 'prior', only metric; use --directions metric"),
        ("metric", "other", "made with weights abc..., the model has other"),
    ],
)
def test_another_kind_or_model_is_refused(tmp_path, kind, model, says):
    with pytest.raises(ModelError, match=says):
        read_directions(written(tmp_path), kind, model)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROWS * np.nan, "not finite"),
        (ROWS.astype(np.float16), "float16"),
        (ROWS.T.copy(), r"\[4, 2\]"),
        (ROWS.ravel(), r"\[8\]"),
        (ROWS * 0, "all zeros"),
    ],
)
def test_numbers_that_no_direction_can_be_drawn_from_are_refused(tmp_path, rows, says):
    with pytest.raises(ModelError, match=says):
        read_directions(written(tmp_path, rows), "metric", "abc")


def test_a_later_version_is_refused(tmp_path):
    path = written(tmp_path)
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors, {**metadata, "version": "2"})
    with pytest.raises(ModelError, match="version '2'; this program reads"):
        read_directions(path, "metric", "abc")


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = written(tmp_path)
    content = path.read_bytes()
    for spoiled in (b"", content[:-3], content[:-1] + b"\x7f", b"\xff" * 64):
        path.write_bytes(spoiled)
        with pytest.raises(ModelError, match="cannot be drawn"):
            read_directions(path, "metric", "abc")
        with pytest.raises(ModelError, match="Use --directions isotropic"):
            read_directions(path, "metric", "abc")
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelError, match="1073741824 bytes, 67108864 are expected at most"):
        read_directions(path, "metric", "abc")
    save_file({"metric/token": ROWS}, path)
    with pytest.raises(ModelError, match="cannot be drawn"):
        read_directions(path, "metric", "abc")
    with pytest.raises(ModelError, match="cannot be read"):
        read_directions(tmp_path / "none", "metric", "abc")
