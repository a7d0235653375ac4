"""Personalizing on ONNX Runtime: an exported artifact, forward only, without torch."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from edge_train.arrays.parameters import Parameters
from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.artifact import STRIP_GRAPHS, Artifact
from edge_train.memory.gpu import counts_gpus
from edge_train.quant import quants
from edge_train.recipe import required
from edge_train.tasks.personalize.recipe import PersonalizeRecipe
from edge_train.tasks.personalize.serving import Call, Denoiser, Model, Pictures, WeightBytes

# What a run holds, at most, while it decodes one picture in one piece: bytes, and bytes per pixel.
# For the VAE that all three families share; measured at 512 pixels: 1.50 GB.
_VAE_BYTES, _VAE_PIXEL_BYTES = 300_000_000, 5_000
# Rounded activations put noise of one size on every slope, and slopes shrink as a word is learned.
# With the usual 4 directions a step one run in three ended far below float; edge-train bench
# engine-quality has the table.
_QUERIES_WHERE_ROUNDED = 8
# `forward_bytes` of a manifest includes an interpreter with numpy and ONNX Runtime, and what its
# first pass touches, which is a line of its own.
_BARE_ENGINE_BYTES = 74_000_000


def fix(recipe: PersonalizeRecipe, model: Model) -> PersonalizeRecipe:
    """Return the recipe with what an artifact has fixed.

    Raises:
      InputError: the model is not exported, or the recipe asks for something else.
    """
    if not isinstance(model, Artifact):
        raise InputError(
            f"runtime {recipe.runtime!r} runs exported models; write one with `edge-train export "
            f"{recipe.model} OUT`, then run --model OUT."
        )
    for name in ("snr_gamma", "class_photos", "class_count"):
        if getattr(recipe, name) is not None:
            raise InputError(
                f"{name} weighs some errors more than others, and the loss of artifact "
                f"{recipe.model} has no weights; leave it out, or name the model folder that it "
                "was exported from."
            )
    fixed: dict[str, Any] = {
        "runtime": "onnx",
        "quant": model.manifest.quant,
        "resolution": model.resolution,
        "dtype": "auto",
    }
    for name, value in fixed.items():
        if (wanted := getattr(recipe, name)) not in (value, "auto", None):
            raise InputError(
                f"{name} {wanted!r} was asked for, but artifact {recipe.model} was exported for "
                f"{value!r}; leave it out, or export another one."
            )
    recipe = replace(recipe, **fixed)
    rounding = quants.get(recipe.quant).rounds_activations
    if rounding and recipe.preset == "default" and recipe.queries is None:
        recipe = replace(recipe, queries=_QUERIES_WHERE_ROUNDED)
    return recipe


def origin(recipe: PersonalizeRecipe, model: Artifact) -> str:
    """Return what the manifest calls the model that was exported."""
    return model.manifest.origin["model"]


def device_notes(recipe: PersonalizeRecipe, model: Artifact) -> list[str]:
    """Return why an artifact runs where it runs.

    Raises:
      InputError: no engine, none that has this device, or none that computes the artifact's
        integer products exactly on this processor.
    """
    from edge_train.runtimes.onnx.engine import check_engine, pick_provider
    from edge_train.runtimes.onnx.products import exact_opening

    check_engine(model.path, model.manifest.requires)
    opening = exact_opening(model)
    provider = pick_provider(recipe.device, recipe.quant)
    if recipe.lean and provider.device != "cpu":
        raise InputError(
            f"--lean leaves the weights in their file, which only the cpu can compute from; device "
            f"is {provider.device}. Leave it out, or use --device cpu."
        )
    notes = [f"device {provider.device}: {provider.reason}"]
    if opening.note:
        notes.append(opening.note)
    if model.family == "sdxl" and recipe.previews:
        notes.append(
            "pictures of an exported XL are guided away from the empty prompt; those of most XL "
            "folders, and of other programs, from zeros: what is learned is the same"
        )
    if recipe.epsilon is not None and recipe.epsilon < model.manifest.safe_epsilon:
        notes.append(
            f"epsilon {recipe.epsilon:g} is below {model.manifest.safe_epsilon:g}, the smallest "
            "radius whose slopes are signal in this artifact; leave it out, and a check picks one."
        )
    if recipe.cap_bytes is not None and provider.device == "cuda" and counts_gpus():
        notes.append(
            "--mem is about the card: the engine's arena is limited to it, and what the driver "
            "counts is compared with it after every step"
        )
    elif recipe.cap_bytes is not None and provider.device != "cpu":
        notes.append(
            f"memory that device {provider.device} has of its own is not measured; --mem is about "
            "this process" + (" and the engine's CUDA arena" * (provider.device == "cuda"))
        )
    return notes


def encode(
    recipe: PersonalizeRecipe, model: Artifact, pixels: Pictures, *, strips: bool
) -> tuple[Array, Array]:
    """Return mean and standard deviation of the photos' latents."""
    from edge_train.runtimes.onnx.vae import encode_photos

    return encode_photos(model, pixels, recipe.device, required(recipe.threads), strips=strips)


def decode(recipe: PersonalizeRecipe, model: Artifact, latents: Array, *, strips: bool) -> Pictures:
    """Return the pictures of latents."""
    from edge_train.runtimes.onnx.vae import decode_latents

    limit, threads = recipe.batch_limit, required(recipe.threads)
    return decode_latents(model, latents, recipe.device, threads, limit, strips=strips)


def vae_in_strips(recipe: PersonalizeRecipe, model: Artifact) -> bool:
    """Return whether the VAE works in strips: on a CPU, where the artifact has graphs for it."""
    if STRIP_GRAPHS[0] not in model.manifest.files or recipe.device not in ("auto", "cpu"):
        return False
    needed_bytes = _VAE_BYTES + required(recipe.resolution) ** 2 * _VAE_PIXEL_BYTES
    return recipe.lean or (recipe.cap_bytes is not None and recipe.cap_bytes < needed_bytes)


def open_runtime(
    recipe: PersonalizeRecipe,
    model: Artifact,
    parameters: Parameters,
    token_ids: Sequence[Collection[int]],
) -> Denoiser:
    """Return a session of the step graph."""
    from edge_train.runtimes.onnx.diffusion import OnnxDiffusion

    return OnnxDiffusion(
        model,
        parameters,
        device=recipe.device,
        token_ids=token_ids,
        threads=required(recipe.threads),
        lean=recipe.lean,
        cap_bytes=recipe.cap_bytes,
    )


def smallest_radius(model: Artifact) -> float:
    """Return the radius below which the export measured mostly rounding."""
    return model.manifest.safe_epsilon


def weight_bytes(recipe: PersonalizeRecipe, model: Artifact) -> WeightBytes:
    """Return the bytes of the graphs' weights."""
    from edge_train.runtimes.onnx.products import exact_opening

    sizes = dict.fromkeys(("step", "vae_encoder", "vae_decoder"), 0)
    for tensor in model.manifest.tensors:
        sizes[tensor.file.removesuffix(".weights")] += tensor.bytes
    rewritten = exact_opening(model).rewritten_bytes
    return WeightBytes(sizes["step"], sizes["vae_encoder"], sizes["vae_decoder"], rewritten)


def vae_stays_in_file(recipe: PersonalizeRecipe, model: Artifact) -> bool:
    """Return whether the VAE works in strips: then its weights are mapped."""
    return vae_in_strips(recipe, model)


def stored_bytes(model: Artifact) -> int:
    """Return the bytes of all weights: the graphs compute from them as they are stored."""
    return sum(tensor.bytes for tensor in model.manifest.tensors)


def weight_shapes(model: Artifact) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the step graph's weights; of packed ones, two to a byte, unpacked."""
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in model.manifest.tensors:
        packed = tensor.dtype == "uint8" and tensor.name.endswith("/int4")
        if tensor.file == "step.weights" and tensor.role in ("weight", "quantized"):
            shapes[tensor.name] = (*tensor.shape, 2) if packed else tensor.shape
    return shapes


def vae_width(recipe: PersonalizeRecipe, model: Artifact) -> int:
    """Return the channels of the VAE's first level, which manifests do not tell: the usual ones."""
    return 32 if (recipe.resolution or model.resolution) <= 64 else 128


def activation_bytes(
    recipe: PersonalizeRecipe, model: Artifact, call: Call, step_bytes: int
) -> tuple[int, int]:
    """Return the bytes of activations in training and drawing, from what the export measured."""
    one = model.manifest.forward_bytes - _BARE_ENGINE_BYTES - step_bytes
    both = max(one, 0) * call.samples // min(2, call.together)  # the export measured two at once
    return both, both
