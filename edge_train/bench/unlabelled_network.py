"""A small network that learns, without labels, which pictures show the same item.

Two pictures of one item, in other colors and a pixel or two apart, shall have like features, and
unlike those of all other items of the batch. It sees training items only; those that are measured
are test items.

Source: SimCLR (arXiv:2002.05709). We differ in what two views differ by (looks and shifts, never
crops: the shape is what is asked for) and in features from the last layer, not the one before.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.bench.items import BACKGROUNDS, COLORS, Grey, Look, Pixels, paint
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.rng import Key

Tensor = Any  # torch's, which is imported late
Network = Any
Views = Callable[[Any, np.random.Generator], Pixels]

FEATURES = 128
STEPS = 400
_BATCH = 128  # items, two pictures each
_RATE = 2e-3
_TEMPERATURE = 0.2
_CHANNELS = (32, 64, 96, 128)
_SEED = 0


def untrained() -> Network:
    """Return the network, with weights from its own seed: (n, 3, 32, 32) to (n, 128)."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        layers: list[Network] = []
        for number, width in enumerate(_CHANNELS):
            inputs = _CHANNELS[number - 1] if number else 3
            layers.append(nn.Conv2d(inputs, width, 3, stride=2 if number else 1, padding=1))
            layers += [nn.GroupNorm(8, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(_CHANNELS[-1] * 16, FEATURES))


def views(items: Grey, generator: np.random.Generator) -> Pixels:
    """Return one picture an item, each in a look and at a place of its own."""
    looks = [Look(c, b) for c in COLORS for b in BACKGROUNDS if c != b]
    pictures = []
    for item in items:
        look = looks[generator.integers(len(looks))]
        right, down = generator.integers(-2, 3, size=2).tolist()
        pictures.append(paint(item[None], look, (right, down)))
    return np.concatenate(pictures)


def to_tensor(pictures: Pixels) -> Tensor:
    """Return (n, 3, side, side) in [-1, 1]."""
    import torch

    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)


def trained(items: Grey, steps: int = STEPS, views: Views = views) -> Network:
    """Train on items (n, 28, 28); the same items and steps give the same network.

    Args:
      views: draws a picture of each item; twice a step.
    """
    import torch

    network = untrained()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        draw = Key(_SEED, step).generator("unlabelled")
        some = items[draw.choice(len(items), size=min(_BATCH, len(items)), replace=False)]
        seen = network(to_tensor(np.concatenate([views(some, draw), views(some, draw)])))
        optimizer.zero_grad()
        torch.autograd.backward(apart(seen))
        optimizer.step()
        schedule.step()
    return network.eval()


def apart(features: Tensor) -> Tensor:
    """Return the loss: cross-entropy of telling an item's other picture from all pictures.

    Args:
      features: (2 n, width); row i and row i + n are of one item.
    """
    import torch
    from torch.nn import functional

    count = len(features) // 2
    unit = functional.normalize(features, dim=1)
    near = unit @ unit.T / _TEMPERATURE
    near = near.masked_fill(torch.eye(2 * count, dtype=torch.bool), float("-inf"))
    return functional.cross_entropy(near, torch.arange(2 * count).roll(count))


def kept(path: Path, items: Grey, steps: int = STEPS, views: Views = views) -> Network:
    """Return the network in a file, or train it and write that; see `trained`."""
    import torch

    if not path.exists():
        state = {
            name: value.numpy() for name, value in trained(items, steps, views).state_dict().items()
        }
        save_tensors(path, state, {})
    network = untrained()
    tensors, _ = load_tensors(path)
    network.load_state_dict({name: torch.from_numpy(v) for name, v in tensors.items()})
    return network.eval()
