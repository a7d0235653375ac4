"""A tiny Stable Diffusion in the layout of the original checkpoints: one file, other names."""

import re
from pathlib import Path

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
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v"}
_VAE_ATTENTION["to_out.0"] = "proj_out"


def write_single_file(folder: Path, file: Path) -> Path:
    """Write the model of a diffusers folder (sd1, one layer a level) into one file."""
    tensors: dict[str, Tensor] = {}
    for name, value in load_file(_weights(folder / "unet")).items():
        tensors[f"model.diffusion_model.{_unet(name)}"] = value
    for name, value in load_file(_weights(folder / "vae")).items():
        spelled = _vae(name)
        flat = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", spelled) is not None
        tensors[f"first_stage_model.{spelled}"] = value[..., None, None] if flat else value
    for name, value in load_file(_weights(folder / "text_encoder")).items():
        plain = name.removeprefix("text_model.")
        tensors[f"cond_stage_model.transformer.text_model.{plain}"] = value
    save_file({name: value.contiguous() for name, value in tensors.items()}, file)
    return file


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
