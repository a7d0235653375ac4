"""Batches hold every draw of a step; photos, captions, timesteps and noise are as promised."""

import numpy as np
import pytest

from edge_train.rng import Key
from edge_train.tasks.personalize.objective import Personalize, PhotoCache, build_cache

SIGNAL = np.linspace(0.999, 0.005, 1000).astype(np.float32)


def cache(photos=3, captions=2, flips=True, deviation=0.0):
    views = photos * (2 if flips else 1)
    mean = np.arange(views, dtype=np.float32)[:, None, None, None] * np.ones(
        (1, 4, 6, 5), np.float32
    )
    ids = [
        [{"ids": np.array([photo, caption, -1])} for caption in range(captions)]
        for photo in range(photos)
    ]
    return build_cache(mean, np.full_like(mean, deviation), ids)


def task(prediction_type="epsilon", **options):
    return Personalize(
        cache=options.pop("cache", cache()),
        signal=SIGNAL,
        prediction_type=prediction_type,
        window=(300, 700),
        samples=options.pop("samples", 4),
        evaluation_samples=options.pop("evaluation_samples", 8),
        constant=options.pop("constant", {}),
    )


def test_a_batch_is_a_pure_function_of_its_key():
    a, b = task().batch(Key(1, 5)), task().batch(Key(1, 5))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert not np.array_equal(a["target"], task().batch(Key(1, 6))["target"])


def test_timesteps_fill_the_window_and_never_leave_it():
    drawn = np.concatenate([task().batch(Key(0, step))["timesteps"] for step in range(600)])
    assert drawn.min() == 300 and drawn.max() == 699


def test_captions_belong_to_their_photo_mirrored_or_not():
    for step in range(60):
        batch = task(samples=1).batch(Key(0, step))
        root_signal = np.sqrt(SIGNAL[batch["timesteps"]])[:, None, None, None]
        root_noise = np.sqrt(1 - SIGNAL[batch["timesteps"]])[:, None, None, None]
        clean = (batch["latents"] - root_noise * batch["target"]) / root_signal
        view = round(float(clean.mean()))
        assert batch["ids"][0, 0] == view % 3


def test_every_view_and_caption_is_drawn():
    batches = [task(samples=1).batch(Key(0, step)) for step in range(300)]
    pairs = {tuple(batch["ids"][0, :2]) for batch in batches}
    assert pairs == {(photo, caption) for photo in range(3) for caption in range(2)}


def test_v_prediction_target_is_the_velocity():
    noise_task, v_task = task(), task("v_prediction")
    noise_batch, v_batch = noise_task.batch(Key(0, 1)), v_task.batch(Key(0, 1))
    np.testing.assert_array_equal(noise_batch["latents"], v_batch["latents"])
    signal = SIGNAL[v_batch["timesteps"]][:, None, None, None]
    noise = noise_batch["target"]
    clean = (v_batch["latents"] - np.sqrt(1 - signal) * noise) / np.sqrt(signal)
    expected = np.sqrt(signal) * noise - np.sqrt(1 - signal) * clean
    np.testing.assert_allclose(v_batch["target"], expected, atol=2e-4)


def test_latents_are_drawn_from_the_posterior():
    sure = task(cache=cache(deviation=0.0)).batch(Key(0, 1))
    unsure = task(cache=cache(deviation=0.5)).batch(Key(0, 1))
    spread = (unsure["latents"] - sure["latents"]) / np.sqrt(SIGNAL[sure["timesteps"]])[
        :, None, None, None
    ]
    assert 0.45 < spread.std() < 0.55


def test_the_evaluation_batch_never_changes_and_covers_the_window():
    a, b = task().evaluation(), task().evaluation()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert sorted(a["timesteps"]) == [325, 375, 425, 475, 525, 575, 625, 675]
    assert {int(row[0]) for row in a["ids"]} == {0, 1, 2}


def test_constant_inputs_are_given_to_every_sample():
    batch = task(constant={"time_ids": np.arange(6, dtype=np.float32)}).batch(Key(0, 0))
    assert batch["time_ids"].shape == (4, 6)


@pytest.mark.parametrize("flips", [False, True])
def test_a_cache_survives_storage(flips):
    one = cache(flips=flips, deviation=0.1)
    two = PhotoCache.from_tensors(one.tensors())
    a = task(cache=one).batch(Key(3, 3))
    b = task(cache=two).batch(Key(3, 3))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("flips", [False, True])
def test_a_photo_is_drawn_as_often_as_its_repeats_say(flips):
    plain = cache(photos=2, captions=1, flips=flips)
    captions = [[{"ids": np.array([photo])}] for photo in range(2)]
    uneven = build_cache(plain.mean, plain.deviation, captions, repeats=(1, 3))
    stored = PhotoCache.from_tensors(uneven.tensors())
    drawn = np.concatenate(
        [task(cache=stored, samples=8).batch(Key(0, step))["ids"][:, 0] for step in range(100)]
    )
    assert np.bincount(drawn) / len(drawn) == pytest.approx([0.25, 0.75], abs=0.06)  # 4 sigma
    assert len(stored.mean) == len(plain.mean)  # no photo is kept twice
    even = build_cache(plain.mean, plain.deviation, captions, repeats=(2, 2))
    assert "draws" not in even.tensors()  # older runs have the same bits
