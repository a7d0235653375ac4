"""What `pretrain.py` can make: how large, on which pictures, for how many steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mixes import CLOTHES, PHOTOS, Mix
from networks import TINY, WIDE, Sizes
from training import Plan
from unet_training import POOL


@dataclass(frozen=True)
class Plans:
    """The plan of every trained stage, and how much is drawn around them.

    Without a plan of the VAE, it and the judge are those of the shipped model.
    """

    vae: dict[str, Plan]
    judge: Plan
    painter: dict[str, Plan]
    pool: int  # pictures encoded at a time
    compiled: bool
    tested: int  # pictures that measure the VAE, and the judge
    samples: int  # pictures a word that measure the pipeline


@dataclass(frozen=True)
class Recipe:
    """One model.

    Args:
      name: what `--recipe` says; the folder of the pipeline.
      card: the file of the model card, with {names} to fill in.
      text_type: what the text encoder multiplies in where a processor has bfloat16; all else is
        float32.
      core_minutes: of one AVX-512 core with bfloat16 instructions: the sum of parts measured at a
        few steps. On a core whose other half is busy a step takes up to twice as long.
      shipped: it is part of the package; the weights of others stay where they were made.
    """

    name: str
    card: str
    mix: Mix
    sizes: Sizes
    text_type: torch.dtype
    plans: Plans
    core_minutes: int
    shipped: bool


_JUDGE = Plan(steps=1000, batch=128, rate=2e-3, warmup=30, average=0.99, save_every=200)

_RECIPES = (
    Recipe(
        name="tiny_sd",
        card="card.md",
        mix=CLOTHES,
        sizes=TINY,
        text_type=torch.float32,
        plans=Plans(
            vae={
                "vae": Plan(
                    steps=1150, batch=64, rate=2e-3, warmup=30, average=0.99, save_every=100
                ),
                # Many small steps sharpen what few large ones left blurred: 23.8 dB after the
                # first stage.
                "vae-fine": Plan(
                    steps=1600, batch=32, rate=1.5e-3, warmup=30, average=0.99, save_every=200
                ),
            },
            judge=_JUDGE,
            painter={
                "painter": Plan(
                    steps=2900, batch=64, rate=1.2e-3, warmup=100, average=0.998, save_every=100
                ),
                "painter-fine": Plan(
                    steps=3300, batch=64, rate=1.2e-3, warmup=100, average=0.998, save_every=100
                ),
            },
            pool=POOL,
            compiled=True,
            tested=4096,
            samples=16,
        ),
        core_minutes=60,
        shipped=True,
    ),
    Recipe(
        name="wide_clothes",
        card="wide_card.md",
        mix=CLOTHES,
        sizes=WIDE,
        # A text is 20 tokens of 768: half of a step in float32, a quarter in bfloat16. The UNet's
        # small convolutions are no faster in it.
        text_type=torch.bfloat16,
        plans=Plans(
            vae={},
            judge=_JUDGE,
            painter={
                # wider layers take smaller steps
                "painter": Plan(
                    steps=2200, batch=64, rate=8e-4, warmup=200, average=0.998, save_every=100
                ),
                "painter-fine": Plan(
                    steps=1600, batch=64, rate=8e-4, warmup=100, average=0.998, save_every=100
                ),
            },
            pool=POOL,
            compiled=True,
            tested=4096,
            samples=16,
        ),
        core_minutes=100,
        shipped=False,
    ),
    Recipe(
        name="wide_photos",
        card="wide_card.md",
        mix=PHOTOS,
        sizes=WIDE,
        text_type=torch.bfloat16,
        plans=Plans(
            # Photos have more to keep than painted clothes: a VAE of their own. 9,000 photos are
            # few, so text encoder and UNet train for three fifths of the steps: cut for time,
            # not by how well the model draws.
            vae={
                "vae": Plan(
                    steps=1150, batch=64, rate=2e-3, warmup=30, average=0.99, save_every=100
                ),
                "vae-fine": Plan(
                    steps=1600, batch=32, rate=1.5e-3, warmup=30, average=0.99, save_every=200
                ),
            },
            judge=_JUDGE,
            painter={
                "painter": Plan(
                    steps=1500, batch=64, rate=8e-4, warmup=200, average=0.998, save_every=100
                ),
                "painter-fine": Plan(
                    steps=800, batch=64, rate=8e-4, warmup=100, average=0.998, save_every=100
                ),
            },
            pool=POOL,
            compiled=True,
            tested=2000,
            samples=16,
        ),
        core_minutes=80,
        shipped=False,
    ),
)
RECIPES = {recipe.name: recipe for recipe in _RECIPES}

_QUICK_VAE = {
    "vae": Plan(steps=4, batch=8, rate=2e-3, warmup=2, average=0.9, save_every=2),
    "vae-fine": Plan(steps=2, batch=8, rate=1e-3, warmup=1, average=0.9, save_every=2),
}


def quick(plans: Plans) -> Plans:
    """Return plans of the same stages that take seconds, to test the script."""
    return Plans(
        vae=_QUICK_VAE if plans.vae else {},
        judge=Plan(steps=4, batch=8, rate=2e-3, warmup=2, average=0.9, save_every=2),
        painter={
            "painter": Plan(steps=8, batch=4, rate=1e-3, warmup=2, average=0.9, save_every=2),
            "painter-fine": Plan(steps=2, batch=4, rate=1e-3, warmup=1, average=0.9, save_every=2),
        },
        pool=32,
        compiled=False,
        tested=32,
        samples=1,
    )
