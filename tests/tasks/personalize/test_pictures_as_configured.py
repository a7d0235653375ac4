"""Pictures are those of diffusers' own pipeline, with what a folder's configuration asks for."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from recipes import recipe_for
from tiny_models import make_tiny_model

from edge_train.arrays.parameters import Parameters
from edge_train.errors import InputError, ModelError
from edge_train.formats.diffusion_folder import open_model
from edge_train.tasks.personalize import parts
from edge_train.tasks.personalize.pictures import sample_latents

STEPS, GUIDANCE, PROMPT = 4, 5.0, "a photo of dog"
ZERO_SNR = {"rescale_betas_zero_snr": True}


def configure(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def ours(folder):
    """Return latents of two pictures of one prompt, and the noise that they begin with."""
    recipe = recipe_for(
        model=str(folder), class_word="dog", preview_steps=STEPS, guidance=GUIDANCE, threads=1
    )
    job = parts.check(recipe)
    ids = {
        name: np.stack([job.ids(text)[name] for text in (PROMPT, "")]) for name in job.tokenizers
    }
    runtime = parts.open_runtime(job, Parameters(job.start), ids)
    found = sample_latents(job, runtime, job.start, [PROMPT] * 2)
    runtime.close()
    return found


def theirs(folder, family):
    from edge_train.tasks.personalize.pictures import _PICTURES

    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    noise = [
        _PICTURES.generator("picture", 0, number).standard_normal((4, 8, 8), np.float32)
        for number in range(2)
    ]
    with torch.no_grad():
        return pipeline(
            [PROMPT] * 2,
            height=32,
            width=32,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=torch.from_numpy(np.stack(noise)),
            output_type="latent",
        ).images.numpy()


@pytest.mark.parametrize(
    ("family", "index", "scheduler"),
    [
        ("sdxl", {"force_zeros_for_empty_prompt": True}, {}),
        ("sdxl", {"force_zeros_for_empty_prompt": False}, {}),
        ("sd1", {}, {"timestep_spacing": "linspace"}),
        ("sd2", {}, {**ZERO_SNR, "timestep_spacing": "trailing"}),
    ],
)
def test_final_latents_are_those_of_the_configured_pipeline(tmp_path, family, index, scheduler):
    folder = make_tiny_model(tmp_path / "model", family)
    configure(folder / "model_index.json", **index)
    configure(folder / "scheduler" / "scheduler_config.json", **scheduler)
    stock, found = theirs(folder, family), ours(folder)
    np.testing.assert_allclose(found, stock, rtol=1e-3, atol=1e-4 * np.abs(stock).max())


def test_a_rescaled_schedule_begins_where_nothing_but_noise_is_left(tmp_path):
    folder = make_tiny_model(tmp_path / "model", "sd2")
    assert open_model(folder).spacing == "leading"
    configure(folder / "scheduler" / "scheduler_config.json", **ZERO_SNR)
    assert open_model(folder).spacing == "trailing"
    configure(folder / "scheduler" / "scheduler_config.json", timestep_spacing="leading")
    assert open_model(folder).spacing == "leading"  # as it says
    configure(folder / "scheduler" / "scheduler_config.json", timestep_spacing="uneven")
    with pytest.raises(ModelError, match="timestep_spacing 'uneven' is not known"):
        open_model(folder)


def test_a_model_without_signal_at_its_first_step_draws_finite_numbers(tmp_path):
    folder = make_tiny_model(tmp_path / "model", "sd1")
    configure(folder / "scheduler" / "scheduler_config.json", **ZERO_SNR)
    assert np.isfinite(ours(folder)).all()


def test_more_steps_than_timesteps_are_refused_before_a_run(tmp_path):
    folder = make_tiny_model(tmp_path / "model", "sd1")
    configure(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=950)
    recipe = recipe_for(model=str(folder), class_word="dog", preview_steps=951, threads=1)
    with pytest.raises(InputError, match=r"preview_steps is 951, but .* 950 timesteps"):
        parts.check(recipe)
