"""A folder in timm's layout, config.json and safetensors: which network it is, nothing loaded.

Only names of `architecture` that are known here are taken: strides and activations are in no file,
they follow from the name. timm itself is not needed (it imports torchvision, which has to fit
torch to the build), and nothing from a folder is executed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError
from edge_train.formats.tensor_file import TensorEntry
from edge_train.formats.weight_files import Config, open_weights

_Pixels = tuple[tuple[float, ...], tuple[float, ...]]
_IMAGENET: _Pixels = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES: _Pixels = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_OF_HALVES = ("tf_efficientnet_lite", "tf_mobilenetv3", "vit_")


@dataclass(frozen=True)
class TimmKind:
    """A family of networks.

    Attributes:
      family: of `runtimes/torch/timm_networks`.
      pattern: of the names of its architectures, as a whole.
      says: those names, for people.
      widths: tensors whose rows are the features; the first that a file has counts.
      classifier: what the names of weights begin with that are not used.
    """

    family: str
    pattern: str
    says: str
    widths: tuple[str, ...]
    classifier: tuple[str, ...]


KINDS = (
    TimmKind(
        "resnet",
        r"(wide_)?resnet(18|26|34|50|101|152)(_2)?|resnext(50_32x4d|101_32x8d)",
        "resnet18 to resnet152, wide_resnet, resnext",
        ("layer4.0.bn3.weight", "layer4.0.bn2.weight"),
        ("fc.",),
    ),
    TimmKind(
        "efficientnet",
        r"(tf_)?efficientnet_(lite[0-4]|b[0-8])",
        "efficientnet_lite0 to lite4, efficientnet_b0 to b8 (each also tf_)",
        ("conv_head.weight",),
        ("classifier.",),
    ),
    TimmKind(
        "mobilenetv2",
        r"mobilenetv2_(035|050|075|100|140|110d|120d)",
        "mobilenetv2",
        ("conv_head.weight",),
        ("classifier.",),
    ),
    TimmKind(
        "mobilenetv3_large",
        r"(tf_)?mobilenetv3_large_(075|100|150d)",
        "mobilenetv3_large, mobilenetv3_small (each also tf_)",
        ("conv_head.weight",),
        ("classifier.",),
    ),
    TimmKind(
        "mobilenetv3_small",
        r"(tf_)?mobilenetv3_small_(050|075|100)",
        "",
        ("conv_head.weight",),
        ("classifier.",),
    ),
    TimmKind(
        "vit",
        r"(vit|deit)_(tiny|small|base|large)_patch(8|14|16|32)_(reg4_)?(\d+|dinov2)",
        "vit, deit and DINOv2 of tiny, small, base and large",
        ("fc_norm.weight", "norm.weight"),
        ("head.",),
    ),
    TimmKind(
        "convnext",
        r"convnext(v2)?_(atto|femto|pico|nano|tiny|small|base|large)",
        "convnext and convnextv2 of atto to large",
        ("head.norm.weight",),
        ("head.fc.",),
    ),
)


@dataclass(frozen=True)
class TimmFolder:
    """A checked folder.

    Attributes:
      architecture: as timm names it, `kind` its family.
      pool: how tokens become features, `token` or `avg`; of transformers alone.
      side, width, mean, deviation, weight_bytes, assumed: as in `vision_folder.VisionFolder`.
    """

    path: Path
    architecture: str
    kind: TimmKind
    pool: str
    side: int
    width: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    weight_bytes: int
    assumed: str


def kind_of(architecture: str) -> TimmKind | None:
    """Return the family of an architecture, or None where it is not known here."""
    return next((one for one in KINDS if re.fullmatch(one.pattern, architecture)), None)


def default_pixels(architecture: str) -> _Pixels:
    """Return mean and deviation of pixels between 0 and 1 that timm has for an architecture."""
    halves = architecture.startswith(_OF_HALVES) and "dinov2" not in architecture
    return _HALVES if halves else _IMAGENET


def is_timm(config: Config) -> bool:
    """Return whether a configuration is in timm's layout."""
    return "architecture" in config and "model_type" not in config


def open_timm_folder(path: Path, config: Config, most_side: int) -> TimmFolder:
    """Return what a folder holds.

    Args:
      config: of its config.json.
      most_side: pixels of a picture, at most.

    Raises:
      ModelError: it is damaged, or of an architecture that is not known here.
    """
    name = str(config["architecture"])[:60]
    kind = kind_of(name)
    if kind is None:
        raise ModelError(
            f"{path}: timm's architecture {name!r} is not built here; known are "
            f"{'; '.join(one.says for one in KINDS if one.says)}. Where timm runs, export it as "
            "one ONNX file with its normalisation inside."
        )
    said = config.get("pretrained_cfg")
    said = said if isinstance(said, Mapping) else config  # as older files have it
    files = open_weights(path)
    entries: dict[str, TensorEntry] = {}
    for file in files:
        entries |= file.entries
    try:
        size = said.get("input_size", (3, 224, 224))
        channels, side, other = size
        if channels != 3 or side != other or type(side) is not int or not 0 < side <= most_side:
            raise ValueError(f"pictures of {str(size)[:40]}")
        mean, deviation = (
            _channels(said.get(key, default))
            for key, default in zip(("mean", "std"), default_pixels(name), strict=True)
        )
        if 0 in deviation:
            raise ValueError("a deviation of 0")
        width = next(entries[one].shape[0] for one in kind.widths if one in entries)
    except StopIteration:
        raise ModelError(
            f"{path}: has no tensor {kind.widths[-1]!r}, so it is no {name}; download it again."
        ) from None
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ModelError(
            f"{path}: its config.json does not say what it reads ({error}); download it again."
        ) from error
    return TimmFolder(
        path=path,
        architecture=name,
        kind=kind,
        pool=str(config.get("global_pool") or said.get("global_pool") or "token"),
        side=side,
        width=width,
        mean=mean,
        deviation=deviation,
        weight_bytes=sum(
            entry.nbytes * (1 if entry.dtype == "F32" else 2) for entry in entries.values()
        ),
        assumed=""
        if "mean" in said
        else f"config.json names no mean of pixels: as timm has it for {name}",
    )


def _channels(value: Any) -> tuple[float, ...]:
    found = tuple(float(one) for one in value)
    if len(found) != 3 or not all(abs(one) < 1e6 for one in found):
        raise ValueError(f"{str(value)[:60]} is not a number for each of three channels")
    return found
