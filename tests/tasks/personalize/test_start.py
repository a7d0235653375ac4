"""A token starts from one that was learned before, or is refused in a sentence."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from edge_train.errors import InputError
from edge_train.tasks.personalize.start import learned_vectors

ONE = {"token": np.zeros((2, 4), np.float32)}
TWO = {**ONE, "token_2": np.zeros((2, 6), np.float32)}
VALUES = np.arange(8, dtype=np.float32).reshape(2, 4)


def token(folder, tensors, **metadata):
    save_file(tensors, folder / "token.safetensors", metadata or None)
    return folder / "token.safetensors"


def test_a_token_of_ours_and_one_of_another_program_are_read(tmp_path):
    ours = token(tmp_path, {"<dog>": VALUES}, base_model_sha256="abc")
    assert learned_vectors(ours, ONE, "m", "abc")["token"].tolist() == VALUES.tolist()
    others = token(tmp_path, {"emb_params": VALUES.astype(np.float16)})
    assert learned_vectors(others, ONE, "m", "abc")["token"].dtype == np.float32
    large = token(tmp_path, {"clip_l": VALUES, "clip_g": np.ones((2, 6), np.float32)})
    assert learned_vectors(large, TWO, "m", "abc").keys() == TWO.keys()


@pytest.mark.parametrize(
    ("tensors", "wanted", "metadata", "says"),
    [
        ({"t": VALUES}, ONE, {"base_model_sha256": "other", "base_model": "sd"}, "model sd"),
        ({"t": VALUES[:1]}, ONE, {}, "1 vector of 4 numbers"),
        ({"t": VALUES}, TWO, {}, "token_2 is not there"),
        ({"t": VALUES * np.nan}, ONE, {}, "not finite"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, tensors, wanted, metadata, says):
    with pytest.raises(InputError, match=says):
        learned_vectors(token(tmp_path, tensors, **metadata), wanted, "m", "abc")


def test_no_token_file_is_said(tmp_path):
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a token file"):
        learned_vectors(tmp_path / "x", ONE, "m", "abc")
