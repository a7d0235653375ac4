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
    assert learned_vectors(ours, ONE, "m", ("abc",))[0]["token"].tolist() == VALUES.tolist()
    others = token(tmp_path, {"emb_params": VALUES.astype(np.float16)})
    assert learned_vectors(others, ONE, "m", ("abc",))[0]["token"].dtype == np.float32
    large = token(tmp_path, {"clip_l": VALUES, "clip_g": np.ones((2, 6), np.float32)})
    assert learned_vectors(large, TWO, "m", ("abc",))[0].keys() == TWO.keys()


def test_a_word_fits_every_export_of_the_model_that_it_was_learned_with(tmp_path):
    for learned_with in ("weights", "artifact"):  # the latter by files of earlier versions
        ours = token(tmp_path, {"<dog>": VALUES}, base_model_sha256=learned_with)
        found, _ = learned_vectors(ours, ONE, "m", ("weights", "artifact"))
        assert found["token"].tolist() == VALUES.tolist()


def test_a_run_of_more_vectors_keeps_those_that_were_learned(tmp_path):
    wanted = {"token": np.full((4, 4), 9, np.float32)}
    start, learned = learned_vectors(token(tmp_path, {"t": VALUES}), wanted, "m", ("abc",))
    assert learned == 2
    assert start["token"].tolist() == [*VALUES.tolist(), [9] * 4, [9] * 4]
    assert wanted["token"].tolist() == [[9] * 4] * 4


@pytest.mark.parametrize(
    ("tensors", "wanted", "metadata", "says"),
    [
        ({"t": VALUES}, ONE, {"base_model_sha256": "other", "base_model": "sd"}, "model sd"),
        ({"t": np.ones((3, 4), np.float32)}, ONE, {}, "3 vectors of 4 numbers"),
        ({"t": VALUES[:, :3]}, ONE, {}, "2 vectors of 3 numbers"),
        ({"t": VALUES[:1], "u": VALUES}, TWO, {}, "tensor 't' among 2, and a word has one alone"),
        ({"t": VALUES}, TWO, {}, "word of 1 text encoder, and m has 2 text encoders; name the"),
        ({"clip_l": VALUES, "clip_g": VALUES}, ONE, {}, "of 2 text encoders, and m has 1 text"),
        ({}, ONE, {}, "holds no tensors; name the file of a word"),
        ({"t": VALUES * np.nan}, ONE, {}, "not finite"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, tensors, wanted, metadata, says):
    with pytest.raises(InputError, match=says):
        learned_vectors(token(tmp_path, tensors, **metadata), wanted, "m", ("abc",))


def test_no_token_file_is_said(tmp_path):
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a token file"):
        learned_vectors(tmp_path / "x", ONE, "m", ("abc",))
