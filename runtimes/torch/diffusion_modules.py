"""Where the modules of a Stable Diffusion go in torch, in which type, and how they are loaded."""

from collections.abc import Collection
from pathlib import Path
from typing import cast

import torch
from torch import nn

from edge_train.errors import InputError
from edge_train.formats.diffusion_folder import ModelFolder
from edge_train.quant import names_with, quants
from edge_train.runtimes.torch.card import products_type
from edge_train.runtimes.torch.layered_loading import load_layers
from edge_train.runtimes.torch.spilled_weights import SpilledWeights
from edge_train.runtimes.torch.token_rows import TokenRows

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux spells them, x86 and Arm
_LARGE_UNET = 100_000_000  # parameters above which bfloat16 pays for its rounding on a CPU


def pick_dtype(name: str, device: torch.device, quant: str, model: ModelFolder) -> torch.dtype:
    """Return the type of activations and unquantized weights that a name means on a device.

    Raises:
      InputError: no such type, or torch has no such weights.
    """
    if quant != "none" and quants.get(quant).torch_type is None:
        able = ", ".join(names_with(lambda known: known.torch_type))
        raise InputError(f"quant {quant!r} is not of model folders on torch; use none, {able}.")
    if name != "auto":
        if name not in _DTYPES:
            raise InputError(f"unknown dtype {name!r}; expected auto, {', '.join(_DTYPES)}.")
        return _DTYPES[name]
    if device.type == "cuda":
        if quant == "int4" and products_type(device) == "bfloat16":
            return torch.bfloat16
        return torch.float16
    native = not _BFLOAT16_FLAGS.isdisjoint(_processor_flags())
    large = model.parameter_count("unet") > _LARGE_UNET
    return torch.bfloat16 if native and large else torch.float32


def _processor_flags() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return []  # not Linux


def load_text_encoder(
    model: ModelFolder,
    component: str,
    token_ids: Collection[int],
    dtype: torch.dtype,
    device: torch.device,
    quant: str,
    pages: SpilledWeights | None,
) -> tuple[nn.Module, TokenRows]:
    """Return a text encoder and the rows of its token table that prompts will hold.

    Args:
      token_ids: of these rows; others are never read.
      pages: a file to move the weights into; None leaves them in memory.

    Raises:
      ModelError: a weight file is damaged or does not fit its configuration.
    """
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    ids = sorted(set(token_ids))
    values = torch.from_numpy(model.embedding_rows(component, ids)).to(device, dtype)
    rows = TokenRows(ids, values)
    config = CLIPTextConfig.from_dict(dict(model.configs[component]))
    kind = CLIPTextModelWithProjection if component == "text_encoder_2" else CLIPTextModel
    with torch.device("meta"):
        encoder = kind(config)
    encoder.set_input_embeddings(rows)
    load_layers(
        encoder,
        model.tensor_files(component),
        dtype=dtype,
        device=device,
        quant=quant,
        rename=lambda name: name.removeprefix("text_model."),  # older files have the prefix
        spill=pages,
    )
    for module in encoder.modules():
        if "position_ids" in dict(module.named_buffers(recurse=False)):
            length = module.position_ids.shape[1]
            module.position_ids = torch.arange(length, device=device)[None]
    return encoder.eval(), rows


def load_unet(
    model: ModelFolder,
    dtype: torch.dtype,
    device: torch.device,
    quant: str,
    pages: SpilledWeights | None,
) -> nn.Module:
    """Return the UNet, which keeps few activations where gradients are recorded.

    Args:
      pages: a file to move the weights into; None leaves them in memory.

    Raises:
      ModelError: a weight file is damaged or does not fit its configuration.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(model.configs["unet"]))
    files = model.tensor_files("unet")
    load_layers(unet, files, dtype=dtype, device=device, quant=quant, spill=pages)
    unet.enable_gradient_checkpointing()  # takes effect only where gradients are recorded
    return cast(nn.Module, unet.eval())
