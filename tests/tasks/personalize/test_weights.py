"""Errors are weighted by min-SNR and by masks as their definitions say, in NumPy and in torch."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from places import GOLDEN

from edge_train.errors import InputError
from edge_train.rng import Key
from edge_train.tasks.personalize import encoding, parts
from edge_train.tasks.personalize.accepts import accepts
from edge_train.tasks.personalize.buckets import bucket_sizes
from edge_train.tasks.personalize.objective import Personalize, PhotoCache, build_cache
from edge_train.tasks.personalize.photos import load_photos, require_content
from edge_train.tasks.personalize.prior import missing
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.tasks.personalize.weights import in_cells, min_snr, weighted_losses

SIGNAL = np.linspace(0.999, 0.005, 1000).astype(np.float32)


def by_definition(signal, timestep, gamma, kind):
    ratio = float(signal[timestep]) / (1 - float(signal[timestep]))
    return min(ratio, gamma) / (ratio if kind == "epsilon" else ratio + 1)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_is_its_definition_at_every_timestep(kind):
    timesteps = np.arange(1000)
    expected = [by_definition(SIGNAL, t, 5.0, kind) for t in timesteps]
    np.testing.assert_allclose(min_snr(SIGNAL, timesteps, 5.0, kind), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_is_finite_where_all_or_nothing_is_noise(kind):
    ends = min_snr(np.array([1.0, 0.0], np.float32), np.array([0, 1]), 5.0, kind)
    assert np.isfinite(ends).all()
    assert ends[1] == (1 if kind == "epsilon" else 0)


def cache(masks):
    mean = np.zeros((4, 4, 2, 2), np.float32)
    ids = [[{"ids": np.array([photo, -1])}] for photo in range(2)]
    return build_cache(mean, mean, ids, masks=masks)


def task(masks=None, gamma=None):
    return Personalize(cache(masks), SIGNAL, "epsilon", (0, 1000), 4, 4, {}, gamma)


def test_a_batch_has_weights_only_where_something_weighs():
    assert "weights" not in task().batch(Key(0, 0))
    assert "weights" in task(gamma=5.0).evaluation()


def test_weights_of_a_batch_are_those_of_its_views_and_timesteps():
    masks = np.random.default_rng(0).random((4, 1, 2, 2), np.float32)
    batch = task(masks, 5.0).batch(Key(0, 0))
    plain = task().batch(Key(0, 0))  # the same draws
    for name in plain:
        np.testing.assert_array_equal(batch[name], plain[name])
    photos = batch["ids"][:, 0]
    for row, (photo, timestep) in enumerate(zip(photos, batch["timesteps"], strict=True)):
        own = [m * by_definition(SIGNAL, timestep, 5.0, "epsilon") for m in masks[photo::2]]
        assert any(np.allclose(batch["weights"][row], one, rtol=1e-5) for one in own)


def test_masks_are_kept_with_the_photos_of_a_run():
    masks = np.random.default_rng(0).random((4, 1, 2, 2), np.float32)
    again = PhotoCache.from_tensors(cache(masks).tensors())
    np.testing.assert_array_equal(again.masks, masks)
    assert PhotoCache.from_tensors(cache(None).tensors()).masks is None


def test_a_cell_counts_as_much_as_its_pixels_do():
    mask = np.zeros((16, 16), np.float32)
    mask[:8, :4] = 1
    assert in_cells(mask, 8).tolist() == [[[0.5, 0], [0, 0]]]


def picture(folder, name, pixels):
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    picture(tmp_path, "a.png", draw.integers(0, 255, (40, 60, 3), np.uint8))
    picture(tmp_path, "b.png", draw.integers(0, 255, (40, 60, 3), np.uint8))
    return tmp_path


def test_a_mask_is_no_photo_and_is_cropped_as_its_photo(folder):
    mask = np.zeros((80, 120), np.uint8)
    mask[:, 60:] = 255  # twice the size of its photo, in the same shape
    picture(folder, "a.mask.png", mask)
    found = {photo.name: photo for photo in load_photos(folder, 32).photos}
    assert found.keys() == {"a.png", "b.png"}
    assert found["b.png"].mask is None
    assert "weighted by a.mask.png" in found["a.png"].note
    assert found["a.png"].mask.shape == (32, 32)
    assert found["a.png"].mask[:, :12].max() < 0.1 and found["a.png"].mask[:, 20:].min() > 0.9


def test_what_a_mask_leaves_transparent_does_not_count(folder):
    mask = np.full((40, 60, 4), 255, np.uint8)
    mask[:, :30, 3] = 0  # a cut-out: white, and nothing on the left
    picture(folder, "a.mask.png", mask)
    found = load_photos(folder, 32).photos[0].mask
    assert found[:, :12].max() < 0.1 and found[:, 20:].min() > 0.9


def test_a_mask_of_another_size_is_said(folder):
    picture(folder, "a.mask.png", np.full((20, 30), 255, np.uint8))
    picture(folder, "b.mask.png", np.full((40, 60), 255, np.uint8))
    first, second = load_photos(folder, 32).photos
    assert first.note.endswith("weighted by a.mask.png, 30x20, resized with it")
    assert second.note.endswith("weighted by b.mask.png")


def test_a_mask_without_its_photo_is_no_photo(folder):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:, 20:] = 255
    picture(folder, "c.mask.png", mask)
    picture(folder, "b.Mask.png", mask)  # is b's
    found = load_photos(folder, 32)
    assert [photo.name for photo in found.photos] == ["a.png", "b.png"]
    assert found.photos[1].mask is not None
    assert "left aside: c.mask.png (a mask, and there is no photo 'c' beside it)" in found.notices
    assert accepts(folder) == "2 photos of one thing"


def white(columns=slice(0, 60)):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:, columns] = 255
    return mask


def test_a_mask_as_onetrainer_names_it_is_no_photo(folder):
    picture(folder, "a-masklabel.png", white())
    picture(folder, "c-masklabel.png", white())
    found = load_photos(folder, 32)
    assert [photo.name for photo in found.photos] == ["a.png", "b.png"]
    assert "weighted by a-masklabel.png" in found.photos[0].note
    assert found.photos[1].mask is None
    assert any("c-masklabel.png (a mask, and there is no" in line for line in found.notices)
    assert accepts(folder) == "2 photos of one thing"


def test_a_condition_of_onetrainer_is_no_photo_and_said_in_one_line(folder):
    for name in ("a", "b"):
        picture(folder, f"{name}-condlabel.png", white())
    found = load_photos(folder, 32)
    assert [photo.name for photo in found.photos] == ["a.png", "b.png"]
    (line,) = (line for line in found.notices if "condlabel" in line)
    assert line.startswith(
        "left aside: a-condlabel.png, b-condlabel.png (a condition of OneTrainer"
    )
    assert accepts(folder) == "2 photos of one thing"
    for name in ("a.png", "b.png"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="masks or conditions and no photos"):
        load_photos(folder, 32)


def test_a_folder_of_masks_as_kohyas_trainer_has_it_is_said(folder):
    for name, pictures in (("masks", "ab"), ("others", "ax"), ("empty", "")):
        (folder / name).mkdir()
        for stem in pictures:
            picture(folder / name, f"{stem}.png", white())
    aside = "\n".join(load_photos(folder, 32).notices)
    assert "masks (a sub-folder; masks are read beside their photo, as photo.mask.png" in aside
    assert "empty, others (a sub-folder; those beside photos are not read)" in aside


def test_all_photos_of_one_name_have_its_mask(folder):
    picture(folder, "a.jpg", np.full((40, 60, 3), 90, np.uint8))
    picture(folder, "a.mask.png", white())
    found = {photo.name: photo for photo in load_photos(folder, 32).photos}
    assert found.keys() == {"a.jpg", "a.png", "b.png"}
    np.testing.assert_array_equal(found["a.jpg"].mask, found["a.png"].mask)


def test_a_second_mask_of_a_photo_is_no_photo_and_is_said(folder):
    for name in ("a.mask.jpg", "a.mask.png", "a-masklabel.png"):
        picture(folder, name, white())
    found = load_photos(folder, 32)
    assert [photo.name for photo in found.photos] == ["a.png", "b.png"]
    aside = "left aside: a.mask.jpg, a.mask.png (a mask, and a-masklabel.png is read)"
    assert found.notices[-1] == aside


def test_masks_are_not_counted_as_photos_in_folders_of_repeats(tmp_path):
    inner = tmp_path / "all" / "3_sks bag"
    inner.mkdir(parents=True)
    for name in ("a.png", "b.png", "a.mask.png", "b-masklabel.png"):
        picture(inner, name, white())
    (inner / "a.txt").write_text("{}")
    notices = load_photos(tmp_path / "all", 32).notices
    assert "photos from 3_sks bag (2 photos)" in notices
    assert accepts(tmp_path / "all") == "2 photos of one thing, in folders of repeats"
    inner.rename(tmp_path / "all" / "sks bag")
    with pytest.raises(InputError, match="but 2 in its folder 'sks bag'"):
        load_photos(tmp_path / "all", 32)


@pytest.mark.parametrize("name", ["a.mask.png", "a-masklabel.png"])
def test_white_that_the_crop_cuts_off_is_what_a_refusal_says(tmp_path, name):
    picture(tmp_path, "a.png", np.random.default_rng(0).integers(0, 255, (64, 200, 3), np.uint8))
    mask = np.zeros((64, 200), np.uint8)
    mask[:, :40] = 255
    picture(tmp_path, name, mask)
    wide = bucket_sizes(32, 8)
    with pytest.raises(InputError, match="lies outside of the middle in the shape 32x32") as plain:
        load_photos(tmp_path, 32)
    assert "a.png from 200x64 is cropped; crop both around what counts" in str(plain.value)
    with pytest.raises(InputError, match="cropped; add --buckets, which crops less, crop both"):
        load_photos(tmp_path, 32, offered=wide)
    assert load_photos(tmp_path, 32, sizes=wide).photos[0].mask.any()
    mask[:, 20:] = 0
    picture(tmp_path, name, mask)
    few = ((32, 32), (32, 16))  # the wider one leaves columns 36 to 164
    with pytest.raises(InputError, match="cropped; crop both"):
        load_photos(tmp_path, 32, offered=few)
    with pytest.raises(InputError, match="in the shape 32x16, to which"):
        load_photos(tmp_path, 32, sizes=few)


def test_buckets_are_offered_where_a_run_may_have_them():
    pytest.importorskip("torch")
    plain = parts.check(PersonalizeRecipe(runtime="torch", threads=1))
    assert parts.offered_sizes(plain) == bucket_sizes(32, 8)
    for more in ({"buckets": True}, {"class_count": 3}):
        recipe = PersonalizeRecipe(runtime="torch", threads=1, **more)
        assert parts.offered_sizes(parts.check(recipe)) == ()


def test_a_mask_of_one_dim_pixel_is_not_called_black(tmp_path):
    picture(tmp_path, "a.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    mask = np.zeros((64, 64), np.uint8)
    mask[30, 30] = 1
    picture(tmp_path, "a.mask.png", mask)
    with pytest.raises(InputError, match=r"1 of 4096 pixels are not black, the brightest has 1 of"):
        load_photos(tmp_path, 32)


def test_masks_alone_are_refused(tmp_path):
    picture(tmp_path, "c.mask.png", np.full((40, 60), 255, np.uint8))
    with pytest.raises(InputError, match=r"masks or conditions and no photos; put photo\.jpg"):
        load_photos(tmp_path, 32)


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.full((40, 40), 255, np.uint8), "a mask of 40x40, its photo a.png has 60x40"),
        (np.zeros((40, 60), np.uint8), "black or transparent all over"),
        (np.zeros((40, 60, 4), np.uint8), "black or transparent all over"),
    ],
)
def test_a_mask_that_cannot_be_used_is_one_sentence(folder, pixels, sentence):
    picture(folder, "a.mask.png", pixels)
    with pytest.raises(InputError, match=sentence):
        load_photos(folder, 32)


def test_an_exported_model_says_that_its_loss_has_no_weights(folder):
    pytest.importorskip("onnxruntime")
    recipe = PersonalizeRecipe(model=str(GOLDEN), photos=str(folder), class_word="dog", threads=1)
    with pytest.raises(InputError, match="snr_gamma weighs some errors more"):
        parts.check(replace(recipe, snr_gamma=5.0))
    picture(folder, "a.mask.png", np.full((40, 60), 255, np.uint8))
    with pytest.raises(InputError, match=r"a\.png has a mask"):
        encoding.load_job_photos(parts.check(recipe))


def test_a_black_photo_is_said(folder):
    picture(folder, "c.png", np.zeros((40, 60, 3), np.uint8))
    notices = load_photos(folder, 32).notices
    assert any("1 of 3 photos are black" in line and "c.png" in line for line in notices)


def test_the_definition_of_a_weighted_loss():
    output = np.array([[[[1.0, 2.0]]]], np.float32)
    weights = np.array([[[[1.0, 0.5]]]], np.float32)
    assert weighted_losses(output, np.zeros_like(output), weights).tolist() == [1.5]


def with_prior(weight, masks=None, gamma=None):
    mean = np.full((3, 4, 2, 2), 7.0, np.float32)
    prior = build_cache(mean, 0 * mean, [[{"ids": np.array([9, 9])}]] * 3)
    own = replace(cache(masks), prior=prior)
    return Personalize(own, SIGNAL, "epsilon", (0, 1000), 4, 4, {}, gamma, weight)


def test_a_loss_with_pictures_of_the_class_is_the_sum_of_both_means():
    batch = with_prior(0.5).batch(Key(0, 0))
    assert (batch["ids"][:4, 0] < 2).all() and (batch["ids"][4:, 0] == 9).all()
    output = np.random.default_rng(0).standard_normal(batch["target"].shape, np.float32)
    loss = weighted_losses(output, batch["target"], batch["weights"]).mean()
    squares = np.square(output - batch["target"])
    assert loss == pytest.approx(squares[:4].mean() + 0.5 * squares[4:].mean(), rel=1e-5)


def test_photos_are_drawn_as_without_pictures_of_the_class():
    plain, both = task().batch(Key(0, 3)), with_prior(1.0).batch(Key(0, 3))
    for name in plain:
        np.testing.assert_array_equal(both[name][:4], plain[name])
    assert with_prior(1.0).evaluation().keys() == plain.keys()  # photos alone are evaluated


def test_weights_of_timesteps_hold_for_pictures_of_the_class_too_and_masks_do_not():
    batch = with_prior(2.0, np.zeros((4, 1, 2, 2), np.float32), 5.0).batch(Key(0, 0))
    assert not batch["weights"][:4].any()
    expected = 4.0 * min_snr(SIGNAL, batch["timesteps"][4:], 5.0, "epsilon")
    np.testing.assert_allclose(batch["weights"][4:, 0, 0, 0], expected, rtol=1e-6)


def test_pictures_of_the_class_are_kept_with_the_photos_of_a_run():
    own = with_prior(1.0).cache
    again = PhotoCache.from_tensors(own.tensors())
    assert again.tensors().keys() == own.tensors().keys()
    np.testing.assert_array_equal(again.prior.mean, own.prior.mean)


def test_a_weight_of_no_pictures_is_one_sentence():
    with pytest.raises(InputError, match=r"prior_weight is 0\.5, but no pictures of the class"):
        parts.check(PersonalizeRecipe(prior_weight=0.5))


def of_class(folder, count=None):
    return PersonalizeRecipe(
        class_word="dog", class_photos=str(folder), class_count=count, resolution=32
    )


@pytest.mark.parametrize("name", ["empty", "texts", "none"])
def test_a_folder_of_the_class_may_be_empty_or_not_there_yet(tmp_path, name):
    for inner in ("empty", "texts/1_dog"):
        (tmp_path / inner).mkdir(parents=True)
    (tmp_path / "empty" / ".DS_Store").write_bytes(b"")
    (tmp_path / "texts" / "notes.txt").write_text("dogs")
    assert missing(of_class(tmp_path / name, 3)) == 3
    with pytest.raises(InputError, match=r"no pictures of the class there; .* --class-count 100,"):
        missing(of_class(tmp_path / name))


def test_pictures_of_the_class_that_are_there_need_not_be_drawn(folder):
    assert missing(of_class(folder, 3)) == 1
    assert missing(of_class(folder)) == 0


def test_a_file_in_the_place_of_the_folder_of_the_class_is_one_sentence(tmp_path):
    (tmp_path / "dogs").write_bytes(b"")
    with pytest.raises(InputError, match=r"Not a directory; name a folder"):
        missing(of_class(tmp_path / "dogs", 3))


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_photos_that_all_show_nothing_are_refused(tmp_path, color):
    rng = np.random.default_rng(0)
    noisy = np.clip(np.array(color) + rng.integers(-2, 3, (40, 60, 3)), 0, 255).astype(np.uint8)
    picture(tmp_path, "a.png", noisy)
    picture(tmp_path, "b.png", np.full((40, 60, 3), color, np.uint8))
    plain = load_photos(tmp_path, 32).photos
    with pytest.raises(InputError, match=r"every photo .* \(a.png, b.png\), .* nothing to learn"):
        require_content(tmp_path, plain)
    noisy[:20] ^= 64
    picture(tmp_path, "c.png", noisy)
    require_content(tmp_path, load_photos(tmp_path, 32).photos)
