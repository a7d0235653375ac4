"""The VAE in torch: photos to latents and latents to pictures; loaded, used and let go."""

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.memory.measure import give_back_memory
from edge_train.runtimes.torch import vae_strips
from edge_train.runtimes.torch.card import pick_device
from edge_train.runtimes.torch.layered_loading import load_layers

_PIXELS_PER_CALL = 65_536  # below this a call is mostly overhead; above it is mostly memory
# Attention layers of older VAE files -> the names of today.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def encode_photos(
    model: ModelFolder,
    images: NDArray[np.uint8],
    device: str = "auto",
    *,
    threads: int | None = None,
    strips: bool = False,
) -> tuple[Array, Array]:
    """Return mean and standard deviation of the photos' latents, (n, C, h, w) each.

    `mean + std * noise` is a latent as the UNet knows it: shifted and scaled. Computed in float32
    whatever the weights are stored in (XL's VAE overflows in float16).

    Args:
      images: (n, H, W, 3), sides multiples of the model's `latent_scale`.
      threads: for the whole process from now on; None leaves it as it is.
      strips: hold less, see `vae_strips`.

    Memory:
      The VAE's encoder, and the activations of one photo; both gone on return.
    """
    vae, where = _load_half(model, device, threads, unused=("decoder", "post_quant_conv"))
    means, deviations = [], []
    with torch.no_grad():
        for part in _chunks(len(images), images.shape[1] * images.shape[2]):
            pixels = torch.from_numpy(images[part]).to(where).permute(0, 3, 1, 2)
            values = pixels.float() / 255 * 2 - 1
            if strips:
                mean, deviation = vae_strips.encode(vae, values)
            else:
                latents = vae.encode(values).latent_dist
                mean, deviation = latents.mean, latents.std
            means.append(mean.cpu().numpy())
            deviations.append(deviation.cpu().numpy())
    del vae
    _let_go(where)
    scale = np.float32(model.scaling_factor)
    return (
        (np.concatenate(means) - np.float32(model.shift_factor)) * scale,
        np.concatenate(deviations) * scale,
    )


def decode_latents(
    model: ModelFolder,
    latents: Array,
    device: str = "auto",
    limit: int | None = None,
    *,
    threads: int | None = None,
    strips: bool = False,
) -> NDArray[np.uint8]:
    """Return the pictures (n, H, W, 3) of scaled latents (n, C, h, w), `limit` at a time at most.

    Args:
      threads: for the whole process from now on; None leaves it as it is.
      strips: hold less, see `vae_strips`.

    Memory:
      The VAE's decoder, and the activations of one picture; both gone on return.
    """
    vae, where = _load_half(model, device, threads, unused=("encoder", "quant_conv"))
    scaled = latents / np.float32(model.scaling_factor) + np.float32(model.shift_factor)
    pictures = []
    with torch.no_grad():
        pixels = latents.shape[2] * latents.shape[3] * model.latent_scale**2
        for part in _chunks(len(latents), pixels, limit):
            values = torch.from_numpy(scaled[part]).to(where)
            if strips:
                decoded = vae_strips.decode(vae, values)
            else:
                decoded = vae.decode(values, return_dict=False)[0]
            levels = (decoded / 2 + 0.5).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
            pictures.append(levels.permute(0, 2, 3, 1).cpu().numpy())
    del vae
    _let_go(where)
    return np.concatenate(pictures)


def _chunks(count: int, pixels: int, limit: int | None = None) -> Iterator[slice]:
    together = min(max(1, _PIXELS_PER_CALL // pixels), limit or count)
    for start in range(0, count, together):
        yield slice(start, start + together)


def _load_half(
    model: ModelFolder, device: str, threads: int | None, unused: tuple[str, ...]
) -> tuple[Any, torch.device]:
    """Return the VAE without the parts named in `unused`."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    where = pick_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(dict(model.configs["vae"]))
    for name in unused:
        setattr(vae, name, None)
    files = model.tensor_files("vae")
    load_layers(vae, files, dtype=torch.float32, device=where, rename=_modern_name)
    return vae.eval(), where


def _modern_name(name: str) -> str:
    """Return today's name of a tensor of the VAE.

    >>> _modern_name("encoder.mid_block.attentions.0.proj_attn.weight")
    'encoder.mid_block.attentions.0.to_out.0.weight'
    """
    return ".".join(_RENAMED.get(part, part) for part in name.split("."))


def _let_go(device: torch.device) -> None:
    gc.collect()
    give_back_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()
