"""Training of the VAE that turns pictures into latents and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mixes import Mix
from networks import make_vae
from pictures import Grey
from training import Plan, fit, keyed, seeded

# Weight of the KL term in the first and in the second half of each stage.
LATENT_PULL = {"vae": (2e-3, 5e-4), "vae-fine": (5e-4, 2e-4)}
ABSOLUTE_WEIGHT = 0.3  # of the absolute error, beside the squared one


@dataclass(frozen=True)
class VaeReport:
    """Seconds of each stage, and PSNR in dB on test pictures of shown and of held-out classes."""

    seconds: tuple[float, ...]
    psnr_db: float
    held_out_psnr_db: float


def psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of reconstructing (n, 3, 32, 32) pictures."""
    with torch.no_grad():
        restored = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    return 10 * math.log10(4 / (restored - pixels).square().mean().item())


def train_vae(
    mix: Mix,
    train: Grey,
    test: Grey,
    plans: dict[str, Plan],
    tested: int,
    seed: int,
    folder: Path,
) -> tuple[AutoencoderKL, VaeReport]:
    """Train the VAE on `train`, which holds no held-out class, and scale its latents to std 1.

    Args:
      plans: stages by name, one after the other; the keys are those of LATENT_PULL.
      tested: pictures that give the scale, and the PSNR.
    """
    vae = seeded(seed, make_vae)
    seconds = []
    for stage, plan in plans.items():

        def loss(step: int, stage: str = stage, plan: Plan = plan) -> Tensor:
            generator = keyed(seed, stage, step)
            pixels = mix.compose(train, plan.batch, generator).pixels
            latent = vae.encode(pixels).latent_dist
            noise = torch.randn(latent.mean.shape, generator=generator)
            error = vae.decode(latent.mean + latent.std * noise).sample - pixels
            divergence = 0.5 * (latent.mean.square() + latent.var - 1 - latent.logvar).mean()
            pull = LATENT_PULL[stage][step >= plan.steps // 2]
            return error.square().mean() + ABSOLUTE_WEIGHT * error.abs().mean() + pull * divergence

        weights, stage_seconds = fit(stage, vae, loss, plan, folder)
        vae.load_state_dict(weights)
        seconds.append(stage_seconds)
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        shown = mix.compose(train, tested, keyed(seed, "vae-scale", 0))
        deviation = vae.encode(shown.pixels).latent_dist.mean.std().item()
    vae.register_to_config(scaling_factor=1 / deviation)
    generator = keyed(seed, "vae-test", 0)
    held_out = test.without(mix.named + mix.unnamed)
    report = VaeReport(
        tuple(seconds),
        psnr(vae, mix.compose(test.without(mix.held_out), tested, generator).pixels),
        psnr(vae, mix.compose(held_out, tested, generator).pixels),
    )
    return vae, report
