"""Spaces in which likeness is measured: networks that had no part in what they judge."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.types import Array
from edge_train.bench.items import Grey, Pixels
from edge_train.bench.unlabelled_network import kept, to_tensor
from edge_train.errors import InputError
from edge_train.export.efficient_net import read

Tensor = Any  # torch's, which is imported late

_AT_ONCE = 64  # pictures in a call; bounds memory
# ImageNet networks want about 224 pixels. The pictures have 32: at 96 the same edges are seen for
# a fifth of the time, by a network that was trained on any scale of an object.
_IMAGENET_SIDE = 96
_VIT_SIDE = 224


@dataclass(frozen=True)
class Space:
    """A name for tables, and what maps (n, 3, side, side) in [-1, 1] to features (n, width)."""

    name: str
    network: Callable[[Tensor], Tensor]

    def features(self, pictures: Pixels) -> Array:
        """Return the features (n, width) of pictures (n, side, side, 3)."""
        import torch

        parts = []
        with torch.no_grad():
            for start in range(0, len(pictures), _AT_ONCE):
                some = to_tensor(pictures[start : start + _AT_ONCE])
                parts.append(self.network(some).numpy())
        found: Array = np.concatenate(parts).astype(np.float32)
        return found


def spaces(items: Grey, out: Path, folder: Path | None) -> list[Space]:
    """Return every space there is.

    Args:
      items: training items, for the network that learns here without labels.
      out: where that network is kept.
      folder: of networks that others trained: EfficientNet-Lite0's `.pth`, and folders of CLIP, of
        DINO's ViT or of DINOv2 as transformers writes them.

    Raises:
      InputError: the folder is not there, or holds none of these.
    """
    own = Space("unlabelled", kept(out / "unlabelled.safetensors", items))
    return [own, *(published(folder) if folder else [])]


def published(folder: Path) -> list[Space]:
    """Return the spaces of networks that others trained; see `spaces`.

    Raises:
      InputError: the folder is not there, or holds none of these.
    """
    others = [imagenet(path) for path in sorted(folder.glob("**/efficientnet-lite0*.pth"))]
    others += [_transformer(path.parent) for path in sorted(folder.glob("*/config.json"))]
    if not others:
        raise InputError(
            f"{folder} holds no feature network: no efficientnet-lite0*.pth, no folder of CLIP, "
            "ViT or DINOv2; leave --features out, or name another folder."
        )
    return others


def imagenet(path: Path) -> Space:
    """Return the space of EfficientNet-Lite0, from the file that others publish.

    Raises:
      InputError: it is another file.
    """
    import torch
    from torch.nn import functional

    network = read(path)
    side = (_IMAGENET_SIDE, _IMAGENET_SIDE)

    def features(pixels: Tensor) -> Tensor:
        large = functional.interpolate(pixels, side, mode="bicubic").clamp(-1, 1)
        found: Tensor = network(large.contiguous(memory_format=torch.channels_last))
        return found

    return Space("imagenet", features)


def _transformer(folder: Path) -> Space:
    """Return the space of a folder that transformers wrote.

    Raises:
      InputError: it is of another kind.
    """
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    if kind not in ("clip", "vit", "dinov2"):
        raise InputError(
            f"{folder} is a {kind!r}; features come from clip, vit and dinov2. Move it elsewhere."
        )
    import torch
    import transformers
    from torch.nn import functional

    load = transformers.CLIPModel if kind == "clip" else transformers.AutoModel
    model: Any = load.from_pretrained(folder, local_files_only=True).eval()
    words = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    mean, deviation = (
        torch.tensor(words[name])[:, None, None] for name in ("image_mean", "image_std")
    )

    def features(pixels: Tensor) -> Tensor:
        large = functional.interpolate(pixels, (_VIT_SIDE, _VIT_SIDE), mode="bicubic")
        normal = ((large.clamp(-1, 1) + 1) / 2 - mean) / deviation
        if kind == "clip":
            projected: Tensor = model.visual_projection(model.vision_model(normal).pooler_output)
            return projected
        first: Tensor = model(normal).last_hidden_state[:, 0]
        return first

    return Space(f"{kind} {folder.name}", features)
