"""`edge-train export BACKBONE OUT.onnx --for backbone`: what a device runs without torch."""

from collections.abc import Callable
from pathlib import Path

from edge_train.errors import InputError, ModelError
from edge_train.formats.hub import find_folder
from edge_train.formats.picture_graph import read_picture_graph
from edge_train.formats.vision_folder import open_vision_folder
from edge_train.registry import load
from edge_train.units import format_bytes

_LITE_SIDE = 224
_FILES = (".pth", ".pt")
_LEAST_SIDE, _MOST_SIDE = 32, 1024


def export_backbone(
    source: str, out: Path, resolution: int | None, say: Callable[[str], None]
) -> None:
    """Write a backbone that `--task images` runs without torch.

    Args:
      source: EfficientNet-Lite0's published `.pth`, or a folder or hub id of transformers.
      resolution: side of the pictures; None: the network's own.

    Raises:
      InputError, ModelError: a word, file or network that cannot be used.
    """
    if out.suffix != ".onnx":
        raise InputError(f"{out}: a backbone is written as one file; name it {out}.onnx.")
    if out.exists():
        raise InputError(f"{out} exists already; remove it, or name another file.")
    path = Path(source).expanduser()
    is_file = path.suffix in _FILES
    folder = None if is_file else open_vision_folder(find_folder(source)[0])
    side = resolution or (folder.side if folder else _LITE_SIDE)
    if not _LEAST_SIDE <= side <= _MOST_SIDE:
        raise InputError(f"--resolution {side}: from {_LEAST_SIDE} to {_MOST_SIDE} pixels.")
    try:
        write = load("edge_train.export.image_backbone:write_backbone")
    except ImportError as error:
        raise ModelError(
            f"export needs torch and onnxscript ({error}); `pip install edge-train[desk]`."
        ) from error
    if folder is None:
        network = load("edge_train.export.image_backbone:lite_network")(path)
    else:
        network = load("edge_train.runtimes.torch.pictures:VisionNetwork")(folder)
    write(network, side, out)
    width, size = read_picture_graph(out).width, format_bytes(out.stat().st_size)
    say(f"{out}: {size}; pictures of {side} pixels to {width} features")
    say(f"edge-train run PHOTOS --task images --model {out}")
