"""Labeled samples are read as they are, or refused in one sentence that says what is wrong."""

import numpy as np
import pytest
from PIL import Image

from edge_train.errors import InputError
from edge_train.tasks.network.datasets import load

random = np.random.default_rng(0)


def arrays(**changes):
    found = {
        "train_images": random.integers(0, 256, (30, 6, 5), np.uint8),
        "train_labels": np.arange(30, dtype=np.uint8) % 3,
        "test_images": random.integers(0, 256, (9, 6, 5), np.uint8),
        "test_labels": np.arange(9, dtype=np.uint8) % 3,
        "class_names": np.array(["a", "b", "c"]),
    }
    found |= changes
    return {name: value for name, value in found.items() if value is not None}


def saved(path, **changes):
    np.savez_compressed(path / "data.npz", **arrays(**changes))
    return path / "data.npz"


def test_an_npz_gives_its_samples_names_and_statistics(tmp_path):
    data = load(saved(tmp_path))
    assert (data.shape, data.class_names) == ((6, 5, 1), ("a", "b", "c"))
    assert data.train.inputs.dtype == np.uint8  # a fourth of the memory of floats
    values = data.standardized(data.train.inputs)
    assert values.dtype == np.float32
    assert (values.mean(), values.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))


def test_without_a_test_part_a_fifth_is_set_aside_and_never_trained_on(tmp_path):
    images = np.arange(30, dtype=np.float32).repeat(4).reshape(30, 4)
    path = saved(tmp_path, train_images=None, train_inputs=images, test_images=None)
    one, other = load(path), load(path)
    assert (len(one.train.labels), len(one.test.labels)) == (24, 6)
    together = np.concatenate([one.train.inputs[:, 0], one.test.inputs[:, 0]])
    assert sorted(together.tolist()) == list(range(30))
    np.testing.assert_array_equal(one.test.inputs, other.test.inputs)


def test_a_subset_is_the_same_every_time_and_of_all_classes(tmp_path):
    path = saved(tmp_path, train_labels=np.repeat([0, 1, 2], 10))
    data = load(path, train_samples=15, test_samples=4)
    assert (len(data.train.labels), len(data.test.labels)) == (15, 4)
    assert set(data.train.labels) == {0, 1, 2}
    np.testing.assert_array_equal(data.train.inputs, load(path, train_samples=15).train.inputs)


BAD = {
    "NaN": ({"train_images": np.full((30, 6, 5), np.nan, np.float32)}, "900 numbers.*NaN"),
    "constant": ({"train_images": np.full((30, 6, 5), 7, np.uint8)}, "is the same"),
    "one class": ({"train_labels": np.ones(30, np.uint8)}, "of one class .'b'"),
    "label too large": ({"train_labels": np.arange(30) % 4}, "train label 3 is out of range; 3 cl"),
    "label below zero": ({"test_labels": np.arange(9) - 1}, "test label -1 is out of range"),
    "labels missing": ({"train_labels": np.zeros(29, np.uint8)}, "30 train samples, but 29 labels"),
    "float labels": ({"train_labels": np.zeros(30)}, "train_labels is float64"),
    "words": ({"train_images": np.array([["a"]] * 30)}, "train_images is <U1"),
    "other shape": (
        {"test_images": np.zeros((9, 5, 5), np.uint8)},
        r"\(6, 5, 1\), test.*\(5, 5, 1",
    ),
    "no keys": ({"train_images": None, "test_images": None}, "expected train_images"),
    "nothing": (
        {"test_images": np.zeros((0, 6, 5), np.uint8), "test_labels": np.zeros(0, int)},
        "0 t",
    ),
}


@pytest.mark.parametrize(("changes", "words"), BAD.values(), ids=BAD.keys())
def test_samples_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, changes, words):
    with pytest.raises(InputError, match=words) as caught:
        load(saved(tmp_path, **changes))
    assert "data.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_a_pickle_is_never_read(tmp_path):
    path = saved(tmp_path, train_images=np.array([{"a": 1}] * 30, object))
    with pytest.raises(InputError, match="pickled objects, which are never read"):
        load(path)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_damaged_npz_is_refused(tmp_path, keep):
    path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(InputError, match="damaged"):
        load(path)


def test_flipped_bytes_in_an_npz_are_noticed(tmp_path):
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[200:230] = b"x" * 30
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load(path)


@pytest.mark.parametrize("name", ["missing.npz", "missing", "notes.txt"])
def test_a_path_that_is_no_data_is_refused(tmp_path, name):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"no such file|cannot be read|must be a .npz"):
        load(tmp_path / name)


def picture(path, mode="L", size=(8, 6), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(0, 256, (*size[::-1], 3), np.uint8) if value is None else value
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_folder_has_a_class_per_subfolder(tmp_path, mode, channels):
    for name in ("cat", "dog"):
        for number in range(6):
            picture(tmp_path / name / f"{number}.png", mode)
    data = load(tmp_path)
    assert (data.class_names, data.shape) == (("cat", "dog"), (6, 8, channels))
    assert len(data.train.labels) + len(data.test.labels) == 12
    assert load(tmp_path, resolution=4).shape == (4, 4, channels)


def test_a_folder_may_bring_its_own_test_part(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png")
    data = load(tmp_path)
    assert (len(data.train.labels), len(data.test.labels)) == (8, 4)


def test_folders_without_pictures_and_damaged_pictures_are_named(tmp_path):
    with pytest.raises(InputError, match="one subfolder a class"):
        load(tmp_path)
    picture(tmp_path / "cat" / "1.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "1.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"1\.png: cannot be read \(damaged"):
        load(tmp_path)


def test_large_pictures_need_a_resolution(tmp_path):
    for name in ("cat", "dog"):
        picture(tmp_path / name / "1.png", size=(600, 20))
    with pytest.raises(InputError, match=r"600x20 pixels.*set resolution"):
        load(tmp_path)


def table(path, rows, head="x,y,label"):
    path = path / "data.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_a_table_has_the_class_in_its_label_column(tmp_path):
    rows = [f"{'up' if i % 2 else 'down'},{i},{i * i}" for i in range(20)]
    data = load(table(tmp_path, rows, "label,x,y"))
    assert (data.class_names, data.shape) == (("down", "up"), (2,))
    assert len(data.train.labels) == 16
    np.testing.assert_array_equal(data.train.labels, data.train.inputs[:, 0] % 2)


def test_a_series_is_cut_into_windows_that_never_mix_labels_or_parts(tmp_path):
    rows = [f"{i},{-i},{'walk' if i < 50 else 'run'}" for i in range(100)]
    data = load(table(tmp_path, rows), window=(5, 2))
    assert data.shape == (5, 2)
    for part in (data.train, data.test):
        first = part.inputs[:, 0, 0]
        np.testing.assert_array_equal(part.inputs[:, :, 0], first[:, None] + np.arange(5))
        assert ((part.inputs[..., 0] < 50) == (part.labels == 1)[:, None]).all()
    assert not set(data.train.inputs[..., 0].ravel()) & set(data.test.inputs[..., 0].ravel())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no examples in it"),
        (["1,2,a", "3,b"], "line 3 has 2 columns"),
        (["1,2,a", "x,4,b"], "line 3 has 'x' in column 'x', which is no number"),
        (["1,,a", "3,4,b"] * 5, "line 2 has nothing in column 'y'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_line(tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        load(table(tmp_path, rows))


def test_windows_that_overlap_are_said_to_share_rows_with_those_held_out(tmp_path):
    path = table(tmp_path, [f"{n},{-n},{n // 40}" for n in range(160)])
    assert any("windows overlap" in line for line in load(path, window=(5, 2)).notices)
    assert load(path, window=(5, 5)).notices == ()


def test_windows_longer_than_a_run_of_one_label_are_refused(tmp_path):
    rows = [f"{i},{i},{'ab'[i // 10 % 2]}" for i in range(40)]
    with pytest.raises(InputError, match="runs of one label are too short"):
        load(table(tmp_path, rows), window=(15, 1))
