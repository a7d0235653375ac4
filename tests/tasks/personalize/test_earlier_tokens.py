"""Earlier tokens are read as people have them, or one sentence says what is wrong with which."""

import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from edge_train.errors import InputError
from edge_train.tasks.personalize.earlier_tokens import LEAST, earlier_tokens

WIDTHS = {"token": 4}
VECTOR = np.arange(4, dtype=np.float32)


def filled(folder, count=LEAST):
    (folder / "dog").mkdir(parents=True)
    for number in range(count):
        save_file({"<rex>": VECTOR + number}, folder / "dog" / f"{number:02d}.safetensors")
    return folder


def test_files_of_ours_and_of_others_are_read(tmp_path):
    folder = filled(tmp_path / "tokens")
    about = {"class_word": "cat"}
    save_file({"<tom>": np.ones((2, 4), np.float16)}, folder / "tom.safetensors", about)
    (folder / "readme.txt").write_text("mine")
    found = {token.name: token for token in earlier_tokens(folder, WIDTHS)}
    assert found["00"].class_word == "dog"
    assert found["00"].vectors["token"].tolist() == [VECTOR.tolist()]
    assert found["tom"].class_word == "cat"
    assert found["tom"].vectors["token"].dtype == np.float32
    assert found["tom"].vectors["token"].shape == (2, 4)


def test_both_vectors_of_xl_are_read(tmp_path):
    folder = filled(tmp_path / "tokens", 0)
    for number in range(LEAST):
        pair = {"clip_l": VECTOR, "clip_g": np.ones((1, 6), np.float32)}
        save_file(pair, folder / "dog" / f"{number}.safetensors")
    found = earlier_tokens(folder, {"token": 4, "token_2": 6})
    assert found[0].vectors["token_2"].shape == (1, 6)


@pytest.mark.parametrize("name", ["learned_embeds.bin", "rex.pt"])
def test_a_pickle_is_never_opened(tmp_path, name):
    folder = filled(tmp_path / "tokens")
    (folder / "dog" / name).write_bytes(pickle.dumps({"<rex>": VECTOR}))
    with pytest.raises(InputError, match="is a pickle, which runs code when it is opened"):
        earlier_tokens(folder, WIDTHS)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"t": VECTOR[:3]}, r"token is \[1, 3\], this model has \(vectors, 4\)"),
        ({"t": VECTOR * np.nan}, "token has numbers that are not finite"),
        ({"t": VECTOR.astype(np.int32)}, "token has numbers that are not finite floats"),
        ({"a": VECTOR, "b": VECTOR}, "a is .* this model has nothing of that name"),
        ({"t": np.zeros((0, 4), np.float32)}, r"token is \[0, 4\]"),
        ({"t": np.zeros((1, 1, 4), np.float32)}, r"token is \[1, 1, 4\]"),
    ],
)
def test_what_is_no_token_of_this_model_is_named(tmp_path, tensors, says):
    folder = filled(tmp_path / "tokens")
    save_file(tensors, folder / "dog" / "bad.safetensors")
    with pytest.raises(InputError, match=f"bad.safetensors: {says}"):
        earlier_tokens(folder, WIDTHS)


def test_damaged_and_large_files_are_named(tmp_path):
    folder = filled(tmp_path / "tokens")
    bad = folder / "dog" / "bad.safetensors"
    bad.write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match=r"bad\.safetensors: not a token file"):
        earlier_tokens(folder, WIDTHS)
    with bad.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match="1073741824 bytes, a token has 8388608 at most"):
        earlier_tokens(folder, WIDTHS)


def test_a_token_without_a_class_word_says_where_to_put_it(tmp_path):
    folder = filled(tmp_path / "tokens")
    save_file({"<rex>": VECTOR}, folder / "rex.safetensors")
    with pytest.raises(InputError, match="does not say what word it began as; put it into"):
        earlier_tokens(folder, WIDTHS)


def test_too_few_tokens_and_no_folder_are_said(tmp_path):
    with pytest.raises(InputError, match=r"holds 7 tokens .* takes 8 at least"):
        earlier_tokens(filled(tmp_path / "tokens", 7), WIDTHS)
    with pytest.raises(InputError, match="is no folder"):
        earlier_tokens(tmp_path / "none", WIDTHS)
