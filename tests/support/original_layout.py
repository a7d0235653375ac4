"""A tiny Stable Diffusion in the layout of the original checkpoints: one file, other names."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_OPEN_CLIP = {  # in this order: `layers` holds the names of the others
    "encoder.layers": "transformer.resblocks",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v"}
_VAE_ATTENTION["to_out.0"] = "proj_out"


def write_single_file(folder: Path, file: Path) -> Path:
    """Write the model of a diffusers folder (one layer a level) into one file.

    The text encoder of a Stable Diffusion 2, and the second one of an XL, have OpenCLIP's names.
    """
    tensors: dict[str, Tensor] = {}
    unet = load_file(_weights(folder / "unet"))
    for name, value in unet.items():
        tensors[f"model.diffusion_model.{_unet(name)}"] = value
    for name, value in load_file(_weights(folder / "vae")).items():
        spelled = _vae(name)
        flat = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", spelled) is not None
        tensors[f"first_stage_model.{spelled}"] = value[..., None, None] if flat else value
    first = load_file(_weights(folder / "text_encoder"))
    if (folder / "text_encoder_2").is_dir():
        second = load_file(_weights(folder / "text_encoder_2"))
        tensors |= _clip(first, "conditioner.embedders.0.transformer.text_model.")
        tensors |= _open_clip(second, "conditioner.embedders.1.model.")
    elif unet["down_blocks.0.attentions.0.proj_in.weight"].ndim == 2:  # linear: version 2
        tensors |= _open_clip(first, "cond_stage_model.model.")
    else:
        tensors |= _clip(first, "cond_stage_model.transformer.text_model.")
    save_file({name: value.contiguous() for name, value in tensors.items()}, file)
    return file


def _clip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name.removeprefix("text_model."): value for name, value in tensors.items()}


def _open_clip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a text encoder with queries, keys and values as one matrix."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name == "text_projection.weight":
            found[prefix + "text_projection"] = value.T
            continue
        plain = name.removeprefix("text_model.")
        for old, new in _OPEN_CLIP.items():
            plain = plain.replace(old, new)
        if one := re.fullmatch(r"(.*attn)\.q_proj\.(weight|bias)", plain):
            parts = [tensors[name.replace("q_proj", f"{kind}_proj")] for kind in "qkv"]
            found[f"{prefix}{one[1]}.in_proj_{one[2]}"] = torch.cat(parts)
        elif not re.search(r"\.[kv]_proj\.", plain):
            found[prefix + plain] = value
    return found


def _weights(component: Path) -> Path:
    return next(component.glob("*.safetensors"))


def _replaced(name: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        if re.search(rf"(^|\.){re.escape(old)}\.", name):
            return re.sub(rf"(^|\.){re.escape(old)}\.", rf"\g<1>{new}.", name)
    return name


def _unet(name: str) -> str:
    layers = 1
    if "resnets" in name:
        name = _replaced(name, _RESNET)
    if found := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        block = (layers + 1) * int(found[1]) + int(found[3]) + 1
        return f"input_blocks.{block}.{int(found[2] == 'attentions')}.{found[4]}"
    if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{(layers + 1) * (int(found[1]) + 1)}.0.op.{found[2]}"
    if found := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        block = (layers + 1) * int(found[1]) + int(found[3])
        return f"output_blocks.{block}.{int(found[2] == 'attentions')}.{found[4]}"
    if found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", name):
        return f"output_blocks.{(layers + 1) * int(found[1]) + layers}.2.conv.{found[2]}"
    return _replaced(name, _UNET)


def _vae(name: str) -> str:
    levels = 3
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if "attentions" in name:
        name = _replaced(name, _VAE_ATTENTION)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    for number in (0, 1):
        name = name.replace(f"mid_block.resnets.{number}", f"mid.block_{number + 1}")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    if found := re.match(r"decoder\.up_blocks\.(\d)\.(.*)", name):
        rest = found[2].replace("resnets", "block").replace("upsamplers.0", "upsample")
        name = f"decoder.up.{levels - 1 - int(found[1])}.{rest}"
    return name
