"""Likeness to photos of a thing: what is learned from is never what is compared with."""

import io

import numpy as np
import pytest
from PIL import Image

from edge_train.bench.photo_subjects import (
    GROUNDS,
    KEPT,
    PICTURES,
    PLAIN,
    PhotoSubjects,
    background_of,
    read_others,
    read_subject,
    views,
)
from edge_train.errors import InputError


def colored(*colors):
    return np.stack([np.full((32, 32, 3), color, np.uint8) for color in colors])


class Mean:
    """A space in which a picture is its mean color."""

    name = "mean color"

    def features(self, pictures):
        return pictures.reshape(len(pictures), -1, 3).mean(axis=1) + 1.0


@pytest.fixture
def subjects(tmp_path):
    photos = {"cat": colored((200, 0, 0), (190, 0, 0), (0, 0, 200), (0, 20, 200))}
    others = colored((0, 200, 0), (200, 200, 0))
    return PhotoSubjects(photos, others, [Mean()], tmp_path)


def test_photos_that_are_compared_with_are_not_learned_from(subjects):
    folder = subjects.write("cat")
    learned = np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])
    np.testing.assert_array_equal(learned, subjects.photos["cat"][:-KEPT])
    assert {file.read_text("utf-8") for file in folder.glob("*.txt")} == {PLAIN + "\n"}


def test_pictures_are_like_the_kept_photos_and_on_the_grounds_that_were_asked_for(
    subjects, monkeypatch
):
    asked = []

    def draw(job, runtime, point, texts, together):
        asked.extend(texts)
        right = colored(*[(0, 10, 200)] * PICTURES)
        return np.concatenate([right, colored(*[(45, 85, 225)] * PICTURES)])

    monkeypatch.setattr("edge_train.bench.photo_subjects.draw", draw)
    steps = type("Steps", (), {"job": None, "runtime": None})
    found = subjects.score(steps, {}, "cat", composed=True)
    assert set(asked) <= set(subjects.prompts)
    assert found.composition == 1 / len(GROUNDS)  # all of them are blue
    likeness = found.spaces["mean color"]
    assert likeness.rank == 1 and 0.9 < likeness.cosine < 1
    assert np.isnan(subjects.score(steps, {}, "cat", composed=False).composition)


def test_features_of_the_others_are_made_once(subjects, monkeypatch):
    first = subjects._others(Mean())
    again = PhotoSubjects(subjects.photos, subjects.others[:0], [Mean()], subjects.out)
    np.testing.assert_array_equal(again._others(Mean()), first)


def test_the_edge_of_a_picture_is_its_background():
    picture = colored((225, 40, 40))
    picture[:, 6:-6, 6:-6] = (45, 170, 70)
    assert background_of(picture) == ["red"]


def test_two_views_of_a_photo_are_other_parts_of_it_and_the_same_again():
    photos = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    first, second = views(photos, np.random.default_rng(1)), views(photos, np.random.default_rng(2))
    assert first.shape == photos.shape and first.dtype == np.uint8
    assert (first != second).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(first, views(photos, np.random.default_rng(1)))


def test_a_photo_is_the_square_in_its_middle(tmp_path):
    folder = tmp_path / "dreambooth" / "cat"
    folder.mkdir(parents=True)
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200
    for number in range(3):
        Image.fromarray(wide).save(folder / f"{number:02d}.jpg", quality=95)
    photos = read_subject(tmp_path, "cat")
    assert photos.shape == (3, 32, 32, 3)
    assert abs(photos[:, :, 4:-4].astype(int) - 200).max() < 20


def test_missing_few_and_foreign_photos_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"0 photos, and 3 are needed; .*--data"):
        read_subject(tmp_path, "cat")
    with pytest.raises(InputError, match=r"cifar10_subset_jpeg\.npz is missing; .*--data"):
        read_others(tmp_path)
    path = tmp_path / "cifar10_subset_jpeg.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="has no photos"):
        read_others(tmp_path)


def test_photos_of_others_are_those_of_the_archive(tmp_path):
    photo, content = colored((200, 100, 50))[0], io.BytesIO()
    Image.fromarray(photo).save(content, "JPEG", quality=95)
    once = np.frombuffer(content.getvalue(), np.uint8)
    ends = np.array([0, len(once), 2 * len(once)])
    path = tmp_path / "cifar10_subset_jpeg.npz"
    np.savez(path, train_jpeg=np.concatenate([once, once]), train_offsets=ends)
    found = read_others(tmp_path)
    assert found.shape == (2, 32, 32, 3)
    assert abs(found.astype(int) - photo).max() < 6
