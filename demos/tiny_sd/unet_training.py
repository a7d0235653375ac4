"""Joint training of text encoder and UNet, with a noun that can be any point of a space.

In 60 % of the captions the noun is the word `item`, and the embedding of that word is shifted by
W f(x): f(x) are 32 principal coordinates of the shown grey picture, W is trained. Text encoder and
UNet so learn that a noun may lie anywhere in a 32-dimensional space of shapes, which is what makes
a later textual inversion work. Only the word `item` itself, the mean noun, is shipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from mixes import Mix
from networks import Painter, Sizes, encode_captions, make_scheduler, read_text
from pictures import SLOT, Grey
from training import Plan, fit, keyed, read_tensors, seeded, write_tensors

FEATURES = 32
FEATURE_NOISE = 0.15  # standard deviation added to every coordinate
POOL = 32_768  # pictures encoded at a time
POOL_STEPS = 1500  # steps that share a pool: about three passes at batch 64
# Share of timesteps drawn from FOCUS, by stage: text decides most there, so that words are learned
# with fewer pictures once the rest is there.
FOCUSED_SHARE = {"painter": 0.0, "painter-fine": 0.7}
FOCUS = (300, 1000)
GRADIENT_AGREEMENT = 0.9999  # least cosine of compiled with eager gradients


def shape_features(images: Tensor) -> Tensor:
    """Return principal coordinates of pictures, one row a picture.

    Coordinate k is divided by sqrt(std_k * std_0): half-way whitened, so that the leading ones
    still weigh most.

    Args:
      images: (n, ...) uint8.

    Returns:
      (n, 32) float32.
    """
    flat = images.flatten(1).float() / 255
    flat -= flat.mean(0)
    _, directions = torch.linalg.eigh(flat.T @ flat / len(flat))  # ascending
    coordinates = flat @ directions.flip(1)[:, :FEATURES]
    deviation = coordinates.std(0).clamp_min(1e-3)
    return coordinates / (deviation * deviation[0]).sqrt()


@dataclass(frozen=True)
class Pool:
    """Latents (n, 4, 8, 8) of composed pictures, and the facts about them as in `Pictures`."""

    latent: Tensor
    source: Tensor
    label: Tensor
    color: Tensor
    background: Tensor
    small: Tensor


def make_pool(
    mix: Mix, vae: AutoencoderKL, train: Grey, number: int, count: int, seed: int
) -> Pool:
    """Compose and encode `count` pictures; pool `number` is always the same one."""
    parts: list[Pool] = []
    for start in range(0, count, 128):
        generator = keyed(seed, f"pool-{number}", start)
        shown = mix.compose(train, min(128, count - start), generator)
        with torch.no_grad():
            latent = vae.encode(shown.pixels).latent_dist.mean * vae.config.scaling_factor
        facts = (shown.source, shown.label, shown.color, shown.background, shown.small)
        parts.append(Pool(latent, *facts))
    return Pool(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Pool)))


def cached_pool(
    mix: Mix, vae: AutoencoderKL, train: Grey, number: int, count: int, seed: int, folder: Path
) -> Pool:
    """Return pool `number`, kept in `folder` so that a resumed run need not encode it again."""
    path = folder / f"pool-{number}.safetensors"
    if not path.exists():
        pool = make_pool(mix, vae, train, number, count, seed)
        write_tensors({f.name: getattr(pool, f.name) for f in fields(Pool)}, path, {})
    tensors, _ = read_tensors(path)
    return Pool(**tensors)


def train_painter(
    mix: Mix,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    train: Grey,
    plans: dict[str, Plan],
    seed: int,
    folder: Path,
    compiled: bool,
    sizes: Sizes,
    text_type: torch.dtype,
    pool_count: int = POOL,
) -> tuple[Painter, tuple[float, ...]]:
    """Train text encoder and UNet on `train`, which holds no held-out class.

    Args:
      plans: stages by name, one after the other; the keys are those of FOCUSED_SHARE.
      compiled: run the UNet through torch.compile, after its gradients were compared with eager.
      text_type: what the text encoder multiplies in; its weights and the UNet stay float32.

    Returns:
      The networks with averaged weights, and the seconds trained in each stage.
    """
    painter = seeded(seed, lambda: Painter(tokenizer, FEATURES, sizes))
    slot_id = tokenizer.convert_tokens_to_ids(SLOT + "</w>")
    features = shape_features(train.images)
    schedule = make_scheduler()
    unet = torch.compile(painter.unet) if compiled else painter.unet
    pools: dict[int, Pool] = {}

    def noise_error(network: nn.Module, stage: str, first_pool: int, step: int) -> Tensor:
        plan, number = plans[stage], first_pool + step // POOL_STEPS
        if number not in pools:
            pools.clear()
            pools[number] = cached_pool(mix, vae, train, number, pool_count, seed, folder)
        pool = pools[number]
        generator = keyed(seed, stage, step)
        rows = torch.randint(len(pool.label), (plan.batch,), generator=generator)
        facts = (pool.label[rows], pool.color[rows], pool.background[rows], pool.small[rows])
        captions = encode_captions(tokenizer, mix.describe(*facts, generator))
        shape = features[pool.source[rows]]
        shape = shape + FEATURE_NOISE * torch.randn(shape.shape, generator=generator)
        nouns = painter.noun(shape)
        with torch.autocast("cpu", text_type, enabled=text_type != torch.float32):
            hidden = read_text(painter.text_encoder, captions, nouns, slot_id)
        hidden = hidden.float()
        latent = pool.latent[rows]
        noise = torch.randn(latent.shape, generator=generator)
        time = draw_times(plan.batch, FOCUSED_SHARE[stage], generator)
        noisy = schedule.add_noise(latent, noise, time)
        predicted = network(noisy, time, hidden, return_dict=False)[0]
        return functional.mse_loss(predicted, noise)

    if compiled:
        agreement = gradient_cosine(painter, partial(noise_error, stage="painter"), unet)
        print(f"compiled and eager gradients: cosine {agreement:.7f}", flush=True)
        if agreement < GRADIENT_AGREEMENT:
            print("too different: this run stays eager", flush=True)
            unet = painter.unet
    seconds, first_pool = [], 0
    for stage, plan in plans.items():
        loss = partial(noise_error, unet, stage, first_pool)
        weights, stage_seconds = fit(stage, painter, loss, plan, folder)
        painter.load_state_dict(weights)
        seconds.append(stage_seconds)
        first_pool += math.ceil(plan.steps / POOL_STEPS)
    return painter.eval().requires_grad_(False), tuple(seconds)


def draw_times(count: int, focused_share: float, generator: torch.Generator) -> Tensor:
    """Draw `count` timesteps: a share of them from FOCUS, the others from all 1,000."""
    times = torch.randint(1000, (count,), generator=generator)
    focused = torch.randint(*FOCUS, (count,), generator=generator)
    return torch.where(torch.arange(count) < focused_share * count, focused, times)


def gradient_cosine(
    painter: Painter, noise_error: Callable[..., Tensor], compiled_unet: nn.Module
) -> float:
    """Return the cosine between all gradients of one step, eager and compiled."""
    gradients = []
    for network in (painter.unet, compiled_unet):
        painter.zero_grad(set_to_none=True)
        noise_error(network, first_pool=0, step=0).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in painter.parameters()]).double())
    painter.zero_grad(set_to_none=True)
    eager, compiled = gradients
    return (eager @ compiled / math.sqrt(eager @ eager * (compiled @ compiled))).item()
