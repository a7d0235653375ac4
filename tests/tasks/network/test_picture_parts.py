"""Folders of pictures become labeled samples; what is left out of them is said."""

import re

import numpy as np
import pytest
from picture_files import colors, lying, saved
from PIL import Image
from recipes import recipe_for

from edge_train.errors import InputError
from edge_train.tasks.network.accepts import accepts
from edge_train.tasks.network.job import NetworkJob
from edge_train.tasks.network.pictures import load_pictures

random = np.random.default_rng(0)


def put(path, pixels=None, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = random.integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def classes(folder, count=3, names=("cat", "dog")):
    for name in names:
        for number in range(count):
            put(folder / name / f"{number}.png")
    return folder


def said(found, words):
    return any(re.search(words, line) for line in found.notices)


def test_photos_that_lie_on_their_side_are_turned_upright(tmp_path):
    pixels = colors(16, 16)
    for number, orientation in enumerate(range(1, 9)):
        for name, own in (("up", pixels), ("down", pixels[::-1])):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.png").write_bytes(lying(own, orientation, "png"))
    found = load_pictures(tmp_path, None)
    inputs, labels = found.train
    assert found.class_names == ("down", "up")
    assert (inputs[labels == 1] == pixels).all() and (inputs[labels == 0] == pixels[::-1]).all()
    assert said(found, "14 of 16 pictures: rotated by EXIF")


def test_the_size_of_a_lying_first_picture_is_that_of_its_upright_self(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(lying(colors(16, 8), 6, "jpg"))
    assert load_pictures(tmp_path, None).train[0].shape == (2, 8, 16, 3)


def test_hidden_folders_and_those_of_systems_are_no_classes(tmp_path):
    classes(tmp_path)
    classes(tmp_path, names=(".ipynb_checkpoints", "__MACOSX"))
    put(tmp_path / "cat" / "._0.png")
    put(tmp_path / "stray.png")
    (tmp_path / "notes").mkdir()
    found = load_pictures(tmp_path, None)
    assert (found.class_names, len(found.train[0])) == (("cat", "dog"), 6)
    assert found.notices == (
        "left aside: .ipynb_checkpoints (hidden folder)",
        "left aside: __MACOSX (made by the system, not by you)",
        "left aside: cat/._0.png (hidden file)",
        "left aside: stray.png (in no folder of a class)",
        "left aside: notes (no pictures in it)",
    )


def test_pictures_in_folders_of_a_class_belong_to_it(tmp_path):
    classes(tmp_path)
    put(tmp_path / "cat" / "black" / "9.png")
    assert np.bincount(load_pictures(tmp_path, None).train[1]).tolist() == [4, 3]


@pytest.mark.parametrize("second", ["test", "Testing"])
@pytest.mark.parametrize("third", ["val", "valid", "validation", "dev"])
def test_parts_are_read_under_their_usual_names(tmp_path, second, third):
    for part, count in (("Train", 4), (second, 2), (third, 1)):
        classes(tmp_path / part, count)
    put(tmp_path / second / "bird" / "1.png")
    found = load_pictures(tmp_path, None)
    assert (len(found.train[0]), len(found.test[0])) == (8, 4)
    assert said(found, f"left aside: {third} .not used: the test part is scored")
    assert said(found, "1 pictures of the test part, of classes without any for training .bird")


def test_without_a_test_part_the_validation_part_is_the_test(tmp_path):
    for part, count in (("train", 4), ("val", 2)):
        classes(tmp_path / part, count)
    found = load_pictures(tmp_path, None)
    assert len(found.test[0]) == 4
    assert said(found, "val is the test part; there is no other")


def test_a_class_may_be_called_train(tmp_path):
    classes(tmp_path, names=("train", "test", "tram"))
    assert load_pictures(tmp_path, None).class_names == ("test", "train", "tram")
    assert accepts(tmp_path).startswith("pictures of 3 classes (")


def test_labels_of_a_table_go_before_folders(tmp_path):
    for number in range(12):
        put(tmp_path / "images" / f"{number}.png")
    rows = [f"images/{number}.png,{number % 3 * 5}" for number in range(11)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    found = load_pictures(tmp_path, None)
    assert found.class_names == ("0", "5", "10")  # numbers in the order of numbers
    assert np.bincount(found.train[1]).tolist() == [4, 4, 3]
    assert said(found, "left aside: images/11.png .not in metadata.csv")
    assert accepts(tmp_path).startswith("pictures with labels in a table (")
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(InputError, match=r"metadata\.csv: there is no picture images/3\.png"):
        load_pictures(tmp_path, None)


def test_pictures_are_grey_where_each_of_them_is(tmp_path):
    for number in range(3):
        put(tmp_path / "a" / f"{number}.png", mode="L")
        put(tmp_path / "b" / f"{number}.png", mode="L")
    assert load_pictures(tmp_path, None).train[0].shape == (6, 6, 8, 1)
    put(tmp_path / "b" / "9.png")
    found = load_pictures(tmp_path, None)
    assert found.train[0].shape == (7, 6, 8, 3)
    assert said(found, "6 of 7 pictures are grey; all are read as color")


def test_what_is_stretched_enlarged_alone_or_there_twice_is_said(tmp_path):
    same = random.integers(0, 256, (6, 8, 3), np.uint8)
    for path in ("a/1.png", "a/2.png", "b/1.png"):
        put(tmp_path / "train" / path, same)
    put(tmp_path / "train" / "c" / "1.png", random.integers(0, 256, (4, 4, 3), np.uint8))
    put(tmp_path / "test" / "c" / "2.png", random.integers(0, 256, (6, 8, 3), np.uint8))
    put(tmp_path / "train" / "d" / "2.png", other := random.integers(0, 256, (6, 8, 3), np.uint8))
    put(tmp_path / "test" / "d" / "1.png", other)
    found = load_pictures(tmp_path, None)
    assert found.notices == (
        "1 of 7 pictures have another shape than 8x6 and are stretched to it",
        "1 of 7 pictures are smaller than 8x6 and are enlarged",
        "only one picture to train on: b, c, d; a class needs several",
        "the same picture for training and for the test, whose score it flatters: "
        "test/d/1.png = train/d/2.png",
        "the same picture in different classes: train/a/1.png = train/a/2.png = train/b/1.png",
    )


def test_a_copy_among_pictures_to_train_on_is_said_with_what_it_does(tmp_path):
    classes(tmp_path)
    put(tmp_path / "cat" / "8.png", same := random.integers(0, 256, (6, 8, 3), np.uint8))
    put(tmp_path / "cat" / "9.png", same)
    line = "the same picture more than once; one that is held out flatters the score: "
    assert f"{line}cat/8.png = cat/9.png" in load_pictures(tmp_path, None).notices


def test_pictures_that_cannot_be_read_are_named_together(tmp_path):
    classes(tmp_path)
    for number in range(5):
        (tmp_path / "cat" / f"x{number}.jpg").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"x0\.jpg.*x2\.jpg.*So are 2 more\.") as caught:
        load_pictures(tmp_path, None)
    assert "\n" not in str(caught.value) and "x3.jpg" not in str(caught.value)


def test_a_picture_cut_behind_its_header_is_refused_by_name(tmp_path):
    classes(tmp_path)
    whole = saved(Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)), "png")
    (tmp_path / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.png: cannot be read"):
        load_pictures(tmp_path, None)


def test_a_job_says_what_its_folder_left_aside(tmp_path):
    put(classes(tmp_path, 8) / "stray.png")
    job = NetworkJob(recipe_for("network", data=str(tmp_path), network="mlp 4", samples=2))
    assert job.notes == ()
    job.load()
    assert job.notes == ("left aside: stray.png (in no folder of a class)",)


def test_a_column_of_labels_may_be_named(tmp_path):
    for number in range(4):
        put(tmp_path / f"{number}.png")
    rows = [f"{number}.png,{number},{'ab'[number % 2]}" for number in range(4)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label,breed", *rows]))
    assert load_pictures(tmp_path, None, "breed").class_names == ("a", "b")
    with pytest.raises(InputError, match=r"no column 'race' \(--label-column\)"):
        load_pictures(tmp_path, None, "race")
    with pytest.raises(InputError, match=r"label_column is 'breed', but no metadata\.csv"):
        load_pictures(classes(tmp_path / "plain"), None, "breed")
