"""Personalizing on torch: a model folder in the diffusers layout, with gradients."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.adapter import Adapter
from edge_train.formats.artifact import Artifact
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.formats.embedded import EMBEDDED
from edge_train.methods import methods
from edge_train.methods.method import GRADIENT
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.tasks.device import settle
from edge_train.tasks.personalize import TASK
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.tasks.personalize.serving import Call, Denoiser, Model, Pictures, WeightBytes

# What a run holds, at most, while it decodes one picture in one piece: bytes, and bytes per pixel.
# For the VAE that all three families share; measured at 512 pixels: 2.76 GB.
_VAE_BYTES, _VAE_PIXEL_BYTES = 700_000_000, 8_000
_PIXELS_IN_STRIPS = 128**2  # below this everything fits in a strip or two
# Bytes of a forward pass per latent cell and channel of the first U-Net level, in items of float32;
# of a recomputing backward pass beside it. From `edge-train bench sd15`: 0.3 GB and 0.7 GB at 64 x
# 64 cells and 320 channels; with activations in bfloat16, too, it was no less.
_FORWARD_ITEMS, _BACKWARD_ITEMS = 57, 135
# Quantized layers as they are unpacked, and what that leaves in the allocator: share of the
# weights. From the same bench: both methods held 0.26 GB beside everything else in a footprint.
_UNPACKED_SHARE = 0.28
_ACTIVATION_ITEMS = {"float32": 4, "bfloat16": 2, "float16": 2}


def fix(recipe: PersonalizeRecipe, model: Model) -> PersonalizeRecipe:
    """Return the recipe as it is, for a model folder.

    Raises:
      InputError: the model is an artifact, the recipe asks for what only other engines have, or
        torch is not installed.
    """
    if isinstance(model, Artifact):
        raise InputError(
            f"runtime {recipe.runtime!r} was asked for, but artifact {recipe.model} was exported "
            "for 'onnx'; leave it out, or export another one."
        )
    if recipe.runtime == "ort-training":
        raise InputError(
            "runtime 'ort-training' has no gradient for the GroupNorm and Resize of a Stable "
            "Diffusion; use --runtime torch."
        )
    if recipe.runtime != "auto":
        TASK.use(recipe.runtime)
    if recipe.quant == "int8-fast":
        raise InputError(
            "quant 'int8-fast' is of exported models; use --quant int8, or `edge-train export "
            f"{recipe.model} OUT --quant int8-fast`."
        )
    if find_spec("torch") is None:
        instead = (
            "train a word on the artifact that comes with the program, without --runtime torch."
            if recipe.model == EMBEDDED
            else "export the model where torch is and copy the artifact here: --model ARTIFACT."
        )
        raise InputError(
            f"{recipe.model} as a model folder needs torch, which is not installed; `pip install "
            f"edge-train[desk]`, or {instead}"
        )
    return replace(recipe, device=_place(recipe, model)[0])


def _place(recipe: PersonalizeRecipe, model: ModelFolder) -> tuple[str, str]:
    """Return where a model computes, and why, where `auto` had a choice."""
    as_on_card = replace(recipe, quant="none", dtype="float16")
    return settle(recipe.device, TASK.name, weight_bytes(as_on_card, model).step)


def origin(recipe: PersonalizeRecipe, model: ModelFolder) -> str:
    """Return what the recipe calls the model."""
    return recipe.model


def device_notes(recipe: PersonalizeRecipe, model: ModelFolder) -> list[str]:
    """Return why `auto` is what it is, and what a card does with weights in few bits."""
    device, why = _place(recipe, model)
    notes = [why] if why else []
    if device == "cuda" and recipe.quant in ("int8", "int4"):
        notes.append(
            f"on the card weights in {recipe.quant} are unpacked layer by layer: they save its "
            "memory, not time"
        )
    return notes


def encode(
    recipe: PersonalizeRecipe, model: ModelFolder, pixels: Pictures, *, strips: bool
) -> tuple[Array, Array]:
    """Return mean and standard deviation of the photos' latents."""
    from edge_train.runtimes.torch.vae import encode_photos

    return encode_photos(model, pixels, recipe.device, threads=recipe.threads, strips=strips)


def decode(
    recipe: PersonalizeRecipe, model: ModelFolder, latents: Array, *, strips: bool
) -> Pictures:
    """Return the pictures of latents."""
    from edge_train.runtimes.torch.vae import decode_latents

    limit, threads = recipe.batch_limit, recipe.threads
    return decode_latents(model, latents, recipe.device, limit, threads=threads, strips=strips)


def vae_in_strips(recipe: PersonalizeRecipe, model: ModelFolder) -> bool:
    """Return whether the VAE works in strips: on a CPU, on pictures of more than a strip or two."""
    pixels = required(recipe.resolution) ** 2
    if recipe.device not in ("auto", "cpu") or pixels < _PIXELS_IN_STRIPS:
        return False
    needed_bytes = _VAE_BYTES + pixels * _VAE_PIXEL_BYTES
    return recipe.lean or (recipe.cap_bytes is not None and recipe.cap_bytes < needed_bytes)


def open_runtime(
    recipe: PersonalizeRecipe,
    model: ModelFolder,
    parameters: Parameters,
    token_ids: Sequence[Collection[int]],
) -> Denoiser:
    """Return the model, loaded layer by layer."""
    from edge_train.runtimes.torch.diffusion import TorchDiffusion

    return TorchDiffusion.open(model, parameters, token_ids=token_ids, **_opening(recipe))


def open_adapted(
    recipe: PersonalizeRecipe,
    model: ModelFolder,
    parameters: Parameters,
    adapter: Adapter,
    token_ids: Sequence[Collection[int]],
) -> Denoiser:
    """Return the model with an adapter beside its layers, loaded layer by layer."""
    from edge_train.runtimes.torch.adapted_diffusion import AdaptedDiffusion

    opening = _opening(recipe)
    return AdaptedDiffusion.open_adapted(model, parameters, adapter, token_ids=token_ids, **opening)


def _opening(recipe: PersonalizeRecipe) -> dict[str, Any]:
    """Return what a recipe says of how its model is opened."""
    return {
        "quant": recipe.quant,
        "dtype": recipe.dtype,
        "device": recipe.device,
        "threads": required(recipe.threads),
        "lean": recipe.lean,
        "cap_bytes": recipe.cap_bytes,
    }


def smallest_radius(model: ModelFolder) -> float:
    """Return 0: nobody measured where this model's slopes become rounding."""
    return 0.0


def weight_bytes(recipe: PersonalizeRecipe, model: ModelFolder) -> WeightBytes:
    """Return the bytes of weights, of the token tables none: only a few rows are read."""
    names = ("unet", *model.text_encoders)
    tables = sum(_table_items(model, name) for name in model.text_encoders)
    items = sum(model.parameter_count(name) for name in names) - tables
    width = _ACTIVATION_ITEMS.get(recipe.dtype, 4)
    each = min(quants.get(recipe.quant).weight_bytes, width) if recipe.quant != "none" else width
    half = 4 * model.parameter_count("vae") // 2
    return WeightBytes(int(items * each), half, half)


def _table_items(model: ModelFolder, component: str) -> int:
    file, name = model.token_table(component)
    return int(np.prod(file.entries[name].shape))


def vae_stays_in_file(recipe: PersonalizeRecipe, model: ModelFolder) -> bool:
    """Return False: the VAE is loaded, in strips too."""
    return False


def stored_bytes(model: ModelFolder) -> int:
    """Return the size of the weight files."""
    paths = [path for name in model.components for path in model.weight_files(name)]
    return sum(path.stat().st_size for path in paths)


def weight_shapes(model: ModelFolder) -> dict[str, tuple[int, ...]]:
    """Return the shapes in the headers of the weight files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("unet", *model.text_encoders):
        for file in model.tensor_files(name):
            shapes |= {f"{name}.{key}": entry.shape for key, entry in file.entries.items()}
    return shapes


def vae_width(recipe: PersonalizeRecipe, model: ModelFolder) -> int:
    """Return the channels of the VAE's first level, from its configuration."""
    return int(model.configs["vae"]["block_out_channels"][0])


def activation_bytes(
    recipe: PersonalizeRecipe, model: ModelFolder, call: Call, step_bytes: int
) -> tuple[int, int]:
    """Return the bytes of activations in training and drawing, from the constants above."""
    channels = int(model.configs["unet"]["block_out_channels"][0])
    each = 4 * call.cells * channels
    unpacked = int(_UNPACKED_SHARE * step_bytes) if recipe.quant != "none" else 0
    train = draw = each * _FORWARD_ITEMS * call.samples + unpacked
    if GRADIENT in methods.get(recipe.method).needs:
        both = each * (_FORWARD_ITEMS + _BACKWARD_ITEMS) * max(1, call.samples // 4)
        train = max(train, both + unpacked)
    return train, draw
