"""A folder with a vision model: what it reads and gives, nothing loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError
from edge_train.formats.timm_folder import TimmFolder, is_timm, open_timm_folder
from edge_train.formats.weight_files import Config, open_weights, read_json

PREPROCESSOR = "preprocessor_config.json"
_HALF = (0.5, 0.5, 0.5)
MOST_SIDE = 4096  # pixels of a picture that a backbone reads


def _hidden(config: Config) -> Any:
    return config["hidden_size"]


def _last_hidden(config: Config) -> Any:
    return config["hidden_sizes"][-1]


@dataclass(frozen=True)
class VisionKind:
    """A kind of network: where its features are, and how many there are.

    Attributes:
      width: from the configuration.
      first: the first token of the last states; else what the network pools itself.
      part: of a model of pictures and texts, the one that reads pictures.
    """

    width: Callable[[Config], Any]
    first: bool = False
    part: str = ""


KINDS: Mapping[str, VisionKind] = {
    "vit": VisionKind(_hidden, first=True),
    "deit": VisionKind(_hidden, first=True),
    "beit": VisionKind(_hidden, first=True),
    "dinov2": VisionKind(_hidden, first=True),
    "dinov2_with_registers": VisionKind(_hidden, first=True),
    "clip": VisionKind(_hidden, part="vision"),
    "siglip": VisionKind(_hidden, part="vision"),
    "resnet": VisionKind(_last_hidden),
    "regnet": VisionKind(_last_hidden),
    "convnext": VisionKind(_last_hidden),
    "convnextv2": VisionKind(_last_hidden),
    "swin": VisionKind(lambda c: c["embed_dim"] * 2 ** (len(c["depths"]) - 1)),
    "efficientnet": VisionKind(lambda c: c["hidden_dim"]),
}


@dataclass(frozen=True)
class VisionFolder:
    """A checked folder.

    Attributes:
      side: of pictures that the model was trained on.
      width: numbers of a picture's features.
      mean, deviation: of pixels between 0 and 1, by channel.
      weight_bytes: of its safetensors files in float32.
      assumed: what no file says and was taken instead, in words.
    """

    path: Path
    kind: str
    side: int
    width: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    weight_bytes: int
    assumed: str


def open_vision_folder(path: Path) -> VisionFolder | TimmFolder:
    """Return what a folder of transformers or of timm holds.

    Raises:
      ModelError: it is damaged, or of a kind whose features are not known here.
    """
    config = read_json(path / "config.json")
    if is_timm(config):
        return open_timm_folder(path, config, MOST_SIDE)
    kind = str(config.get("model_type"))
    if kind not in KINDS:
        raise ModelError(
            f"{path}: a {kind[:60]!r} is no backbone of pictures that is known here; known are "
            f"{', '.join(KINDS)}, and every ONNX file from pixels to features."
        )
    inner = config.get("vision_config") if KINDS[kind].part else config
    inner = inner if isinstance(inner, Mapping) else {}
    said = _preprocessor(path)
    side = _side(said.get("crop_size")) or _side(said.get("size"))
    assumed = "" if said else f"no {PREPROCESSOR}: pixels are scaled to [-1, 1]"
    side = side or _side(inner.get("image_size")) or 224
    try:
        width = KINDS[kind].width({"hidden_size": 768, **inner} if KINDS[kind].part else inner)
        if type(width) is not int or not 0 < width < 1 << 20:
            raise ValueError(f"{str(width)[:40]!r} features")
        mean, deviation = (_channels(said.get(name, _HALF)) for name in ("image_mean", "image_std"))
        if not 0 < side <= MOST_SIDE or 0 in deviation:
            raise ValueError(f"pictures of {side} pixels, deviation {deviation}")
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ModelError(
            f"{path}: its configuration does not say what it reads and gives ({error}); download "
            "it again."
        ) from error
    files = open_weights(path)
    numbers = sum(
        entry.nbytes * (1 if entry.dtype == "F32" else 2)
        for file in files
        for entry in file.entries.values()
    )
    return VisionFolder(path, kind, side, width, mean, deviation, numbers, assumed)


def _preprocessor(path: Path) -> Config:
    return read_json(path / PREPROCESSOR) if (path / PREPROCESSOR).is_file() else {}


def normalization(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation that a folder names for pixels between 0 and 1; None: none.

    Raises:
      ModelError: its file is damaged.
    """
    said = _preprocessor(folder)
    if "image_mean" not in said:
        return None
    try:
        mean, deviation = _channels(said["image_mean"]), _channels(said.get("image_std", _HALF))
        if 0 in deviation:
            raise ValueError("a deviation of 0")
    except (ValueError, TypeError) as error:
        raise ModelError(f"{folder / PREPROCESSOR}: {error}; download it again.") from error
    return mean, deviation


def _channels(value: Any) -> tuple[float, ...]:
    found = tuple(float(one) for one in value)
    if len(found) != 3 or not all(abs(one) < 1e6 for one in found):
        raise ValueError(f"{str(value)[:60]} is not a number for each of three channels")
    return found


def _side(size: Any) -> int | None:
    """Return the side that a size names: a number, or one of height or the shortest edge."""
    if isinstance(size, Mapping):
        size = next((size[n] for n in ("height", "shortest_edge") if n in size), None)
    if isinstance(size, list):
        size = size[0] if size else None
    return size if type(size) is int and size > 0 else None
