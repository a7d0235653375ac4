"""What personalizing a token holds: headers of weight files, and activations as measured."""

import math
import re
from collections.abc import Mapping

import numpy as np

from edge_train.formats.artifact import Artifact
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.memory.footprint import (
    PREPARE,
    SAVE,
    TRAIN,
    Footprint,
    Line,
    state_line,
)
from edge_train.methods import methods
from edge_train.methods.method import GRADIENT
from edge_train.protocols import Transform
from edge_train.quant import quants
from edge_train.tasks.personalize import TASK
from edge_train.tasks.personalize.parts import TokenJob, vae_in_strips
from edge_train.tasks.personalize.recipe import PersonalizeRecipe

_PLACE = re.compile(r"(down|up)_blocks\.(\d+)\.(downsamplers|upsamplers)?")
_ONCE = ("time_emb", "add_embedding")  # of a picture, whatever its size
_LOOKED_UP = ("token_embedding", "position_embedding")


# Bytes of a forward pass per latent cell and channel of the first U-Net level, in items of float32;
# of a recomputing backward pass beside it. From `edge-train bench sd15`: 0.3 GB and 0.7 GB at 64 x
# 64 cells and 320 channels; with activations in bfloat16, too, it was no less.
_FORWARD_ITEMS, _BACKWARD_ITEMS = 57, 135
# Quantized layers as they are unpacked, and what that leaves in the allocator: share of the
# weights. From the same bench: both methods held 0.26 GB beside everything else here.
_UNPACKED_SHARE = 0.28
# The same of the VAE, per pixel and channel of its first level, float32.
_ENCODE_ITEMS, _DECODE_ITEMS = 5.0, 9.0
# In strips: one whole map of the first level and what a few strips need; 272 and 303 MB were held
# at 512 pixels, of which 91 MB were interpreter, engine and mapped files.
_STRIP_ITEMS = 1.6
# Of weights that stay in their file no more has to be resident than a pass reads between two times
# that they are let go; a run holds more of them where its cap leaves room.
_WINDOW_BYTES = 64_000_000
_CELLS_PER_CALL, _SAMPLES_PER_CALL = 4_096, 64  # as the runtimes choose
_PIXELS_PER_CALL = 65_536
# `forward_bytes` of a manifest includes an interpreter with numpy and ONNX Runtime.
_BARE_ENGINE_BYTES = 56_000_000
_ACTIVATION_ITEMS = {"float32": 4, "bfloat16": 2, "float16": 2}
_COPIES = 4  # of the trained blocks: live, best, the last good ones, the update


def footprint(job: TokenJob, transform: Transform) -> Footprint:
    """Return what training and drawing hold.

    Args:
      transform: the chain of the method, for the bytes of its state.
    """
    recipe = job.recipe
    use = TASK.use(recipe.runtime)
    parts = _weights(job)
    step = _line("weights", parts["step"], mapped=recipe.lean)
    in_strips = isinstance(job.model, Artifact) and vae_in_strips(job)
    directions = (recipe.queries or 0) * (recipe.sides or 1)
    shapes = {name: block.shape for name, block in job.start.items()}
    state = state_line(transform, shapes, _COPIES + directions)
    encoder = _line("VAE's encoder", parts["encoder"], mapped=in_strips)
    decoder = _line("VAE's decoder", parts["decoder"], mapped=in_strips)
    # a lean run lets go of the denoiser before it decodes
    saved = (state, decoder) if recipe.lean else (step, state, decoder)
    known = {PREPARE: (encoder,), TRAIN: (step, state), SAVE: saved}
    return Footprint(
        use.libraries,
        _stored_bytes(job, sum(parts.values())),
        known,
        _activations(job, parts["step"]),
        use.first_use_bytes,
        use.libraries_bytes,
        _operations(job),
        parts["step"] if recipe.lean else 0,
    )


def _operations(job: TokenJob) -> float:
    """Return the operations of one sample's pass through text encoders and U-Net."""
    model = job.model
    cells = ((job.recipe.resolution or model.resolution) // model.latent_scale) ** 2
    shapes: dict[str, tuple[int, ...]] = {}
    if isinstance(model, Artifact):
        for tensor in model.manifest.tensors:
            packed = tensor.dtype == "uint8" and tensor.name.endswith("/int4")
            if tensor.file == "step.weights" and tensor.role in ("weight", "quantized"):
                shapes[tensor.name] = (*tensor.shape, 2) if packed else tensor.shape
    else:
        for name in ("unet", *model.text_encoders):
            for file in model.tensor_files(name):
                shapes |= {f"{name}.{key}": entry.shape for key, entry in file.entries.items()}
    return denoiser_operations(shapes, cells, model.prompt_tokens)


def _line(name: str, count: int, *, mapped: bool) -> Line:
    """Return the line of weights that are loaded, or stay mapped in their file."""
    if mapped:
        return Line(f"{name} (left in the file)", min(count, _WINDOW_BYTES))
    return Line(name, count)


def _weights(job: TokenJob) -> dict[str, int]:
    """Return the bytes of weights, as loaded, of the trained step and of the VAE's halves."""
    model, recipe = job.model, job.recipe
    if isinstance(model, Artifact):
        sizes = dict.fromkeys(("step", "vae_encoder", "vae_decoder"), 0)
        for tensor in model.manifest.tensors:
            sizes[tensor.file.removesuffix(".weights")] += tensor.bytes
        return {
            "step": sizes["step"],
            "encoder": sizes["vae_encoder"],
            "decoder": sizes["vae_decoder"],
        }
    names = ("unet", *model.text_encoders)
    tables = sum(_table_items(model, name) for name in model.text_encoders)
    items = sum(model.parameter_count(name) for name in names) - tables
    width = _ACTIVATION_ITEMS.get(recipe.dtype, 4)
    each = min(quants.get(recipe.quant).weight_bytes, width) if recipe.quant != "none" else width
    half = 4 * model.parameter_count("vae") // 2
    return {"step": int(items * each), "encoder": half, "decoder": half}


def _table_items(model: ModelFolder, component: str) -> int:
    file, name = model.token_table(component)
    return int(np.prod(file.entries[name].shape))


def _stored_bytes(job: TokenJob, loaded_bytes: int) -> int:
    if isinstance(job.model, Artifact):
        return loaded_bytes
    paths = [path for name in job.model.components for path in job.model.weight_files(name)]
    return sum(path.stat().st_size for path in paths)


def _activations(job: TokenJob, step_bytes: int) -> dict[str, int]:
    """Return the bytes of activations by phase, from the constants above."""
    model, recipe = job.model, job.recipe
    side = recipe.resolution or model.resolution
    cells = (side // model.latent_scale) ** 2
    together = max(1, min(_SAMPLES_PER_CALL, _CELLS_PER_CALL // cells))
    samples = min(together, recipe.batch_limit or together, _most_samples(recipe))
    pictures = min(max(1, _PIXELS_PER_CALL // side**2), recipe.batch_limit or _SAMPLES_PER_CALL)
    vae_width = 128
    if isinstance(model, ModelFolder):
        channels = int(model.configs["unet"]["block_out_channels"][0])
        vae_width = int(model.configs["vae"]["block_out_channels"][0])
        each = 4 * cells * channels
        unpacked = int(_UNPACKED_SHARE * step_bytes) if recipe.quant != "none" else 0
        train = draw = each * _FORWARD_ITEMS * samples + unpacked
        if GRADIENT in methods.get(recipe.method).needs:
            both = each * (_FORWARD_ITEMS + _BACKWARD_ITEMS) * max(1, samples // 4)
            train = max(train, both + unpacked)
    else:
        one = model.manifest.forward_bytes - _BARE_ENGINE_BYTES - step_bytes
        train = draw = max(one, 0) * samples // min(2, together)  # the export measured two at once
        vae_width = 32 if side <= 64 else vae_width
    encode, decode = _ENCODE_ITEMS, _DECODE_ITEMS
    if vae_in_strips(job):
        encode = decode = _STRIP_ITEMS
        pictures = 1
    pixels = 4 * side * side * vae_width * pictures
    return {
        PREPARE: int(encode * pixels),
        TRAIN: train,
        SAVE: int(max(decode * pixels, draw)) if recipe.previews else 0,
    }


def _most_samples(recipe: PersonalizeRecipe) -> int:
    """Return how many samples the largest call could have: that of the evaluation, or a step."""
    step = (recipe.samples or 1) * ((recipe.queries or 0) * (recipe.sides or 1) + 1)
    return max(recipe.evaluation_samples or 1, step)


def denoiser_operations(
    shapes: Mapping[str, tuple[int, ...]], cells: int, prompt_tokens: int
) -> float:
    """Return floating-point operations of one sample's pass through text encoder and U-Net.

    Args:
      shapes: of matrices and filters, by their names in a diffusers folder, `text_encoder.` or
        `unet.` first. Any layout: only the product of the sides counts, and the shorter side of an
        attention's query.
      cells: of the latent picture.
      prompt_tokens: of a prompt.
    """
    places_of = filter(None, map(_PLACE.search, shapes))
    levels = 1 + max((int(found[2]) for found in places_of if found[1] == "down"), default=0)
    products = 0.0
    for name, shape in shapes.items():
        if len(shape) < 2 or any(word in name for word in _LOOKED_UP):
            continue
        if name.startswith("text_encoder"):
            places = prompt_tokens
        elif any(word in name for word in _ONCE):
            places = 1
        elif "attn2.to_k" in name or "attn2.to_v" in name:
            places = prompt_tokens
        else:
            places = max(cells // 4 ** _level(name, levels), 1)
        products += places * math.prod(shape)
        if ".to_q." in name:  # two products with every other place, or with every token
            others = places if "attn1" in name else prompt_tokens
            products += 2 * places * others * min(shape)
    return 2 * products


def _level(name: str, levels: int) -> int:
    """Return how often the picture is halved where a layer of a U-Net works."""
    if "mid_block" in name:
        return levels - 1
    found = _PLACE.search(name)
    if found is None:
        return 0
    level = int(found[2]) if found[1] == "down" else levels - 1 - int(found[2])
    return level + {"downsamplers": 1, "upsamplers": -1}.get(found[3] or "", 0)
