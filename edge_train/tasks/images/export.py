"""`edge-train export BACKBONE OUT --for backbone`: what a device runs, or a folder."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edge_train.errors import InputError, ModelError
from edge_train.formats.hub import find_folder
from edge_train.formats.picture_graph import read_picture_graph
from edge_train.formats.timm_folder import TimmFolder
from edge_train.formats.vision_folder import VisionFolder, open_vision_folder
from edge_train.registry import load
from edge_train.units import format_bytes

_FILES = (".pth", ".pt")
_LEAST_SIDE, _MOST_SIDE = 32, 1024


def export_backbone(
    source: str, out: Path, resolution: int | None, say: Callable[[str], None]
) -> None:
    """Write a backbone that `--task images` runs: an .onnx file, which needs no torch, or a folder.

    Args:
      source: a `.pth` of timm, torchvision or the published EfficientNet-Lite0, or a folder or hub
        id of transformers or timm.
      out: an .onnx file; of a `.pth` also a folder, in timm's layout.
      resolution: side of the pictures; None: the network's own.

    Raises:
      InputError, ModelError: a word, file or network that cannot be used.
    """
    path = Path(source).expanduser()
    is_file = path.suffix in _FILES
    if out.suffix != ".onnx" and not is_file:
        raise InputError(f"{out}: a backbone is written as one file; name it {out}.onnx.")
    if out.exists():
        raise InputError(f"{out} exists already; remove it, or name another file.")
    if is_file:
        _of_pickle(path, out, resolution, say)
        return
    _to_graph(open_vision_folder(find_folder(source, "edge-train export")[0]), out, resolution, say)


def _of_pickle(path: Path, out: Path, resolution: int | None, say: Callable[[str], None]) -> None:
    """Write what is in a `.pth`, as a folder or, by way of one, as a graph."""
    write = _loaded("edge_train.export.pth_file:write_folder")
    with TemporaryDirectory(dir=out.parent if out.parent.is_dir() else None) as there:
        folder = Path(there) / "backbone" if out.suffix == ".onnx" else out
        write(path, folder, resolution)
        found = open_vision_folder(folder)
        if out.suffix == ".onnx":
            _to_graph(found, out, None, say)
            return
    say(f"{out}: pictures of {found.side} pixels to {found.width} features")
    say(f"edge-train run PHOTOS --task images --model {out}")


def _to_graph(
    folder: VisionFolder | TimmFolder,
    out: Path,
    resolution: int | None,
    say: Callable[[str], None],
) -> None:
    side = resolution or folder.side
    if not _LEAST_SIDE <= side <= _MOST_SIDE:
        raise InputError(f"--resolution {side}: from {_LEAST_SIDE} to {_MOST_SIDE} pixels.")
    write = _loaded("edge_train.export.image_backbone:write_backbone")
    write(load("edge_train.runtimes.torch.pictures:VisionNetwork")(folder), side, out)
    width, size = read_picture_graph(out).width, format_bytes(out.stat().st_size)
    say(f"{out}: {size}; pictures of {side} pixels to {width} features")
    say(f"edge-train run PHOTOS --task images --model {out}")


def _loaded(name: str) -> Any:
    try:
        return load(name)
    except ImportError as error:
        raise ModelError(
            f"export needs torch and onnxscript ({error}); `pip install edge-train[desk]`."
        ) from error
