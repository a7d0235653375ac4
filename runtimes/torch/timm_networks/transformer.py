"""Vision transformers by timm's names: ViT, DeiT, DINOv2 with and without registers.

Source: Dosovitskiy et al. (arXiv:2010.11929), pre-norm blocks; DINOv2 (arXiv:2304.07193) scales
each branch. A head has 64 numbers in every architecture that is known here.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from edge_train.runtimes.torch.timm_networks.step import (
    Step,
    Weights,
    layer_norm,
    linear,
    numbered,
)

_HEAD = 64


def steps(names: Iterable[str], pool: str) -> Sequence[Step]:
    """Return the steps from pixels (n, 3, side, side) to features (n, width)."""
    blocks = [
        Step(f"blocks.{number}", _block, is_block=True) for number in numbered(names, "blocks.")
    ]
    return (Step("", _tokens), *blocks, Step("", partial(_pooled, pool=pool)))


def _tokens(own: Weights, pixels: Tensor) -> Tensor:
    weight = own["patch_embed.proj.weight"]
    bias = own.optional("patch_embed.proj.bias")
    hidden = functional.conv2d(pixels, weight, bias, weight.shape[2]).flatten(2).transpose(1, 2)
    first = own["cls_token"].expand(hidden.shape[0], -1, -1)
    places = own["pos_embed"]
    if "reg_token" not in own:
        return torch.cat((first, hidden), 1) + places
    registers = own["reg_token"].expand(hidden.shape[0], -1, -1)  # these have no place
    return torch.cat((first, registers, hidden + places), 1)


def _block(own: Weights, inputs: Tensor) -> Tensor:
    attended = _attention(own.below("attn"), layer_norm(own.below("norm1"), inputs))
    hidden = inputs + _scaled(own, "ls1.gamma", attended)
    wide = functional.gelu(linear(own.below("mlp.fc1"), layer_norm(own.below("norm2"), hidden)))
    return hidden + _scaled(own, "ls2.gamma", linear(own.below("mlp.fc2"), wide))


def _attention(own: Weights, inputs: Tensor) -> Tensor:
    count, tokens, width = inputs.shape
    parts = linear(own.below("qkv"), inputs).reshape(count, tokens, 3, width // _HEAD, _HEAD)
    query, key, value = parts.permute(2, 0, 3, 1, 4)
    found = functional.scaled_dot_product_attention(query, key, value)
    return linear(own.below("proj"), found.transpose(1, 2).reshape(count, tokens, width))


def _scaled(own: Weights, name: str, branch: Tensor) -> Tensor:
    scale = own.optional(name)
    return branch if scale is None else branch * scale


def _pooled(own: Weights, inputs: Tensor, pool: str) -> Tensor:
    normed = layer_norm(own.below("norm"), inputs) if "norm.weight" in own else inputs
    prefix = 1 + (own["reg_token"].shape[1] if "reg_token" in own else 0)
    found = normed[:, prefix:].mean(1) if pool == "avg" else normed[:, 0]
    return layer_norm(own.below("fc_norm"), found) if "fc_norm.weight" in own else found
