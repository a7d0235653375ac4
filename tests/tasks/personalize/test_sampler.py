"""DDIM equals its definition and diffusers' scheduler, for both kinds of prediction."""

import numpy as np
import pytest
import reference

from edge_train.tasks.personalize.sampler import ddim_timesteps, sample

SIGNAL = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).astype(np.float32)


def predict(batch):
    """A made-up denoiser that depends on everything it is given."""
    time = batch["timesteps"][:, None, None, None] / 1000
    words = batch["ids"].sum(axis=1)[:, None, None, None] / 10
    return (0.3 * batch["latents"] * time + 0.1 * words).astype(np.float32)


def drawn(prediction_type, guidance=3.0, steps=20):
    noise = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    ids = {"ids": np.array([[1, 2], [3, 4]])}
    empty = {"ids": np.array([0, 0])}
    options = {"steps": steps, "guidance": guidance, "prediction_type": prediction_type}
    return noise, sample(predict, ids, empty, noise, SIGNAL, constant={}, **options)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 7, 20, 50])
def test_pictures_equal_those_of_diffusers_scheduler(prediction_type, steps):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    scheduler.set_timesteps(steps)
    noise, mine = drawn(prediction_type, steps=steps)
    latents = torch.from_numpy(noise)
    for timestep in scheduler.timesteps:
        ids = np.array([[0, 0], [0, 0], [1, 2], [3, 4]])
        times = np.full(4, int(timestep))
        batch = {"latents": torch.cat([latents] * 2).numpy(), "timesteps": times, "ids": ids}
        without, with_prompt = torch.from_numpy(predict(batch)).chunk(2)
        output = without + 3.0 * (with_prompt - without)
        latents = scheduler.step(output, timestep, latents).prev_sample
    np.testing.assert_allclose(mine, latents.numpy(), rtol=2e-4, atol=2e-4)


def test_one_step_equals_the_reference():
    noise, mine = drawn("epsilon", guidance=1.0, steps=1)
    ids = np.array([[1, 2], [3, 4]])
    output = predict({"latents": noise, "timesteps": np.array([1, 1]), "ids": ids})
    expected = reference.ddim_step(
        noise.astype(float), output.astype(float), float(SIGNAL[1]), float(SIGNAL[0])
    )
    np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


def test_timesteps_go_from_noise_to_picture():
    steps = ddim_timesteps(1000, 20)
    assert len(steps) == 20 and steps[0] == 951 and steps[-1] == 1
    assert (np.diff(steps) < 0).all()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_every_number_of_steps_visits_the_timesteps_of_diffusers(spacing):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(steps_offset=1, timestep_spacing=spacing)
    for steps in range(1, 1001):
        mine = ddim_timesteps(1000, steps, spacing)
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps.numpy()[:steps]  # rounding gives `trailing` one more at times
        past = max(int(theirs[0]) - 999, 0)  # its `leading` has timestep 1000, which is none
        np.testing.assert_array_equal(mine, theirs - past)
        assert len(mine) == steps and mine[-1] >= 0 and mine[0] <= 999


@pytest.mark.parametrize("steps", [999, 1000])
def test_as_many_steps_as_timesteps_are_drawn(steps):
    _, mine = drawn("epsilon", guidance=1.0, steps=steps)
    _, nearly = drawn("epsilon", guidance=1.0, steps=500)
    assert np.isfinite(mine).all()
    assert np.abs(mine - nearly).max() < 0.05 * np.abs(nearly).max()  # the same path, more finely
