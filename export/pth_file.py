"""A `.pth` of a vision model as a folder in timm's layout: the one place where one is read.

Once, on a desk, with `weights_only=True`, so that nothing in it is ever executed. Its tensors are
named as timm and torchvision name them, or it is the published EfficientNet-Lite0, whose names are
made timm's.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_train.errors import InputError
from edge_train.formats.atomic import whole_folder, write_bytes
from edge_train.formats.tensor_store import save_tensors
from edge_train.formats.timm_folder import default_pixels, kind_of

# what torch raises for a file that is none of its own; no object is ever built from it
_UNREADABLE = (
    *(OSError, RuntimeError, KeyError, TypeError, AttributeError, ValueError, EOFError),
    UnpicklingError,
)
_INSIDE = ("state_dict", "model", "model_state")  # where training scripts put the weights
_LITE, _LITE_STEM = "tf_efficientnet_lite0", "_conv_stem.weight"
_SIDE = 224
_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of EfficientNet-Lite0
_LITE_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


def write_folder(path: Path, out: Path, side: int | None) -> None:
    """Write config.json and model.safetensors.

    Args:
      path: the file; its name begins with the architecture, as in `resnet18-f37072fd.pth`.
      side: of its pictures in pixels; None: 224, or what its name says.

    Raises:
      InputError: it is no such file, or of no architecture that is known here.
    """
    tensors = _read(path)
    if _LITE_STEM in tensors:
        name, tensors = _LITE, dict(_lite(tensors))
    else:
        name = _architecture(path)
    told = re.search(r"_(\d{3})$", name)
    mean, deviation = default_pixels(name)
    pixels = side or (int(told[1]) if told and name.startswith(("vit", "deit")) else _SIDE)
    config = {
        "architecture": name,
        "pretrained_cfg": {"input_size": [3, pixels, pixels], "mean": mean, "std": deviation},
    }
    with whole_folder(out) as folder:
        save_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
        write_bytes(folder / "config.json", json.dumps(config, indent=2).encode())


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: torch reads no weights in it ({type(error).__name__}); download it again, "
            "or save its state_dict() alone."
        ) from error
    inside = next((one for one in _INSIDE if isinstance(found, Mapping) and one in found), None)
    found = found[inside] if inside else found
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{path}: holds a {type(found).__name__}, and no weights by name.")
    tensors = {}
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"{path}: {str(name)[:60]!r} is no tensor, so this is no state_dict()."
            )
        plain = value.float() if value.is_floating_point() else value
        tensors[str(name).removeprefix("module.")] = np.ascontiguousarray(plain.numpy())
    return tensors


def _architecture(path: Path) -> str:
    """Return the longest name of an architecture that a file's name begins with."""
    stem = path.name.partition("-")[0].partition(".")[0]
    parts = stem.split("_")
    for count in range(len(parts), 0, -1):
        if kind_of(name := "_".join(parts[:count])) is not None:
            return name
    raise InputError(
        f"{path}: its name begins with no architecture that is known here; call it after its own, "
        "as resnet18.pth or mobilenetv3_small_100.pth."
    )


def _lite(tensors: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the tensors of the published EfficientNet-Lite0 by timm's names, no classes."""
    places = [f"{stage}.{n}" for stage, count in enumerate(_STAGES) for n in range(count)]
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        if first in _LITE_ENDS:
            yield f"{_LITE_ENDS[first]}.{rest}", value
        elif first == "_blocks":
            number, _, own = rest.partition(".")
            if int(number) < len(places):
                layer, _, what = own.partition(".")
                yield f"blocks.{places[int(number)]}.{_layer(layer, number == '0')}.{what}", value


def _layer(name: str, is_first: bool) -> str:
    """Return timm's name of a layer of a block; the first block widens nothing."""
    convolutions = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw"}
    convolutions["_project_conv"] = "conv_pw" if is_first else "conv_pwl"
    norms = {"_bn0": "bn1", "_bn1": "bn1" if is_first else "bn2"}
    norms["_bn2"] = "bn2" if is_first else "bn3"
    return (convolutions | norms).get(name, name)
