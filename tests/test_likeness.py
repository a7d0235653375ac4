"""Likeness is measured by cosine and rank, on features that no engine is needed for."""

import importlib

import numpy as np
import pytest
from places import ROOT

from edge_train.bench.items import (
    BACKGROUNDS,
    COLORS,
    PHOTO_LOOKS,
    SCORED_LOOKS,
    Look,
    choose,
    paint,
    photos_of,
    read_items,
    write_photos,
)
from edge_train.bench.likeness_scores import cosines, likeness, ranks
from edge_train.errors import InputError

NEAR = np.array([[1.0, 0.1], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.9]])


def test_rank_counts_the_items_that_are_nearer():
    assert ranks(np.array([[1.0, 0.0]]), NEAR, 0).tolist() == [1]
    assert ranks(np.array([[1.0, 0.0]]), NEAR, 3).tolist() == [2]
    assert ranks(np.array([[1.0, 0.0], [0.0, 1.0]]), NEAR, 2).tolist() == [4, 4]


def test_length_of_features_does_not_matter():
    pictures = np.array([[3.0, 0.2], [0.1, 7.0]])
    scaled = NEAR * np.array([[5.0], [0.01], [3.0], [1e6]])
    np.testing.assert_array_equal(ranks(pictures, NEAR, 1), ranks(pictures * 9, scaled, 1))


def test_features_that_are_all_the_same_are_no_hit():
    same = np.ones((101, 4))
    assert ranks(same[:1], same, 7).tolist() == [51]
    found = likeness(same[:3], same[:2], same, 7)
    assert (found.cosine, found.first, found.tenth) == (pytest.approx(1), 0, 0)


def test_two_equal_items_share_their_place():
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert ranks(np.array([[1.0, 0.2]]), gallery, 1).tolist() == [1.5]
    assert ranks(np.array([[1.0, 0.2]]), gallery, 2).tolist() == [3]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(bad):
    pictures = np.array([[1.0, 0.0], [bad, 1.0]])
    with pytest.raises(ValueError, match="features of picture 1 are not finite"):
        likeness(pictures, NEAR, NEAR, 0)
    with pytest.raises(ValueError, match="not finite"):
        ranks(NEAR, np.where(NEAR < 0, bad, NEAR), 0)


def test_features_without_length_are_refused():
    with pytest.raises(ValueError, match="features of picture 2 are all zero"):
        cosines(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), NEAR)


@pytest.mark.parametrize("true", [-1, 4])
def test_an_item_that_is_not_there_is_refused(true):
    with pytest.raises(ValueError, match=f"item {true} of 4"):
        ranks(NEAR, NEAR, true)


def test_likeness_says_median_rank_and_shares_of_hits():
    angles = np.linspace(0, np.pi, 200)
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = likeness(gallery[[50, 55, 150]], gallery[[50]], gallery, 50)
    # 5 steps away: 5 nearer on this side, the item's twin beyond, 4 there: rank 10.5, 11 at most
    assert found.first == pytest.approx(1 / 3)
    assert found.tenth == pytest.approx(2 / 3)
    assert 10 <= found.rank <= 11
    assert found.cosine == pytest.approx(np.cos(angles[[0, 5, 100]]).mean())


def test_no_photo_has_a_look_that_is_scored():
    assert not set(PHOTO_LOOKS) & set(SCORED_LOOKS)
    assert len({look.color for look in PHOTO_LOOKS}) == 5
    assert len({look.background for look in PHOTO_LOOKS}) == 5


def test_items_are_painted_as_the_model_saw_them(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT / "demos" / "tiny_sd")
    theirs = importlib.import_module("pictures")
    assert (theirs.COLORS, theirs.BACKGROUNDS, theirs.SIDE) == (COLORS, BACKGROUNDS, 32)
    grey = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    for look, shift in ((Look("brown", "gray"), (0, 0)), (Look("pink", "black"), (2, -1))):
        color, background = list(COLORS).index(look.color), list(BACKGROUNDS).index(look.background)
        pixels = theirs.paint(
            torch.from_numpy(grey),
            torch.full((3,), color),
            torch.full((3,), background),
            zoom=torch.ones(3),
            center=torch.tensor(shift).float().expand(3, 2),
            light=torch.ones(3, 2),
        )
        difference = theirs.to_bytes(pixels).astype(int) - paint(grey, look, shift)
        # their grid hits the middle of a pixel but for float32 rounding, which may turn a half
        assert abs(difference).max() <= 1


def test_an_item_never_leaves_its_picture():
    with pytest.raises(ValueError, match="2 pixels at most"):
        paint(np.zeros((1, 28, 28), np.uint8), PHOTO_LOOKS[0], (3, 0))


def test_photos_of_an_item_name_their_looks(tmp_path):
    item = np.full((28, 28), 200, np.uint8)
    folder = write_photos(item, tmp_path / "bag")
    assert len(sorted(folder.glob("*.png"))) == len(photos_of(item)) == 5
    captions = [path.read_text("utf-8").strip() for path in sorted(folder.glob("*.txt"))]
    assert captions == [look.prompt for look in PHOTO_LOOKS]


def test_the_same_items_are_chosen_again():
    labels = np.tile(np.arange(10), 30)
    first = choose(labels, ("bag", "dress"))
    assert first == choose(labels, ("dress", "bag")) and labels[first["bag"]] == 8


def test_missing_and_foreign_data_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"fashion_mnist\.npz is missing; .*--data"):
        read_items(tmp_path, "test")
    (tmp_path / "fashion_mnist.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="no test pictures"):
        read_items(tmp_path, "test")
