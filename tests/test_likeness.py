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


@pytest.fixture
def items():
    return np.random.default_rng(1).integers(0, 256, (24, 28, 28), dtype=np.uint8)


def test_the_unlabelled_network_is_the_same_again(items, tmp_path):
    torch = pytest.importorskip("torch")
    from edge_train.bench import unlabelled_network

    first, second = (unlabelled_network.trained(items, steps=2).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    start = unlabelled_network.untrained().state_dict()
    assert not torch.equal(first["0.weight"], start["0.weight"])


def test_the_unlabelled_loss_asks_for_like_features_of_one_item():
    torch = pytest.importorskip("torch")
    from edge_train.bench.unlabelled_network import apart

    own = torch.eye(8)
    paired, mixed = torch.cat([own, own]), torch.cat([own, own.roll(1, 0)])
    assert apart(paired) < 0.1 < apart(mixed)
    assert torch.isclose(apart(paired), apart(5 * paired))


def test_a_folder_without_feature_networks_says_what_may_be_there(items, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from edge_train.bench import feature_spaces, unlabelled_network

    monkeypatch.setattr(unlabelled_network, "STEPS", 1)
    monkeypatch.setattr(feature_spaces, "kept", lambda path, items: None)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no feature network: no efficientnet-lite0"):
        feature_spaces.spaces(items, tmp_path, empty)
    (empty / "model").mkdir()
    (empty / "model" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="'llama'; features come from clip, vit and dinov2"):
        feature_spaces.spaces(items, tmp_path, empty)
    (empty / "efficientnet-lite0-1.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not EfficientNet-Lite0"):
        feature_spaces.spaces(items, tmp_path, empty)


@pytest.fixture
def data(items, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    labels = np.resize(np.arange(10), len(items))
    arrays = {f"{s}_{n}": v for s in ("train", "test") for n, v in (("images", items),)}
    arrays |= {f"{s}_labels": labels for s in ("train", "test")}
    np.savez(folder / "fashion_mnist.npz", **arrays)
    return folder


@pytest.mark.slow
def test_curves_that_are_there_are_read_and_not_trained_again(data, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    from edge_train.bench import forwards, item_likeness, unlabelled_network

    monkeypatch.setattr(unlabelled_network, "trained", lambda *_: unlabelled_network.untrained())
    monkeypatch.setattr(item_likeness, "PICTURES", 1)
    monkeypatch.setattr(item_likeness, "_COMPOSED", 2)
    monkeypatch.setattr(forwards, "CLASSES", ("bag",))
    table = forwards.main(tmp_path / "out", 1, data, limit=70)
    assert all(f"| {way} |" in table for way in forwards.WAYS)

    def not_again(*words, **options):
        raise AssertionError("it was trained again")

    monkeypatch.setattr(forwards.subprocess, "run", not_again)
    monkeypatch.setattr(item_likeness, "score", not_again)
    assert forwards.main(tmp_path / "out", 1, data, limit=70) == table


@pytest.mark.slow
def test_settings_that_were_scored_are_read(data, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    from edge_train.bench import item_likeness, unlabelled_network
    from edge_train.bench import likeness as bench

    monkeypatch.setattr(unlabelled_network, "trained", lambda *_: unlabelled_network.untrained())
    monkeypatch.setattr(item_likeness, "PICTURES", 1)
    monkeypatch.setattr(item_likeness, "_COMPOSED", 2)
    monkeypatch.setattr(bench, "_SETTINGS", (("before", 0, 0.2), ("one step", 1, 0.2)))
    table = bench.main(tmp_path / "out", 1, data, limit=1)
    assert "| one step |" in table and "rank among 24 items" in table
    monkeypatch.setattr(bench, "_learned", None)
    assert bench.main(tmp_path / "out", 1, data, limit=1) == table
