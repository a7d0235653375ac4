"""The frozen backbone that a recipe names: its facts from headers, and the network when asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError
from edge_train.formats.hub import find_folder
from edge_train.formats.picture_graph import PictureGraph, read_picture_graph
from edge_train.formats.timm_folder import TimmFolder
from edge_train.formats.vision_folder import (
    PREPROCESSOR,
    VisionFolder,
    normalization,
    open_vision_folder,
)
from edge_train.formats.weight_files import choose_weights, hash_of
from edge_train.registry import load

Features = Callable[[NDArray[Any]], Array]
_SIDE = 224  # where a graph takes any
_IN_FOLDER = ("model.onnx", "onnx/model.onnx")  # as optimum writes them
_TAIL = "edge_train.runtimes.torch.picture_tail"
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class Backbone:
    """What turns pictures into features.

    Attributes:
      source: its graph, or its folder.
      engine: that runs it.
      side: of the pictures that it gets.
      width: numbers of a picture's features, where it is frozen; of what the head reads.
      normal: of pixels, in front of a graph that does not do it itself.
      notes: what the user should know of it.
      trained: last blocks of it that are trained.
      row: numbers of a picture that are kept: those in front of what is trained.
    """

    source: PictureGraph | VisionFolder | TimmFolder
    engine: str
    side: int
    width: int
    normal: tuple[Sequence[float], Sequence[float]] | None = None
    notes: tuple[str, ...] = ()
    trained: int = 0
    row: int = 0

    @property
    def weight_bytes(self) -> int:
        """Of its weights in memory."""
        return self.source.weight_bytes

    @cached_property
    def sha256(self) -> str:
        """The hash of all that its features depend on."""
        path, source = self.source.path, self.source
        if isinstance(source, PictureGraph):
            files = [path]
            beside = [path.parent / PREPROCESSOR] if self.normal is not None else []
        else:
            names = {one.name for one in path.iterdir()}
            files = [path / name for name in ("config.json", *choose_weights(names, path))]
            beside = [path / PREPROCESSOR]
        return hash_of((one.name, one) for one in (*files, *beside) if one.is_file())

    def opened(self, threads: int, device: str = "cpu") -> Features:
        """Return the network, of a folder on a device.

        Raises:
          InputError: the device is not there.
          ModelError: the engine is missing, or cannot read it.
        """
        if isinstance(self.source, PictureGraph):
            opener = load("edge_train.runtimes.onnx.pictures:OnnxPictures")
            graph: Features = opener(self.source, self.normal, threads)
            return graph
        if self.trained:
            trunk: Features = _of_torch(self.source, f"{_TAIL}:TorchTrunk")(
                self.source, threads, self.trained
            )
            return trunk
        opener = _of_torch(self.source, "edge_train.runtimes.torch.pictures:TorchPictures")
        network: Features = opener(self.source, threads, device)
        return network


def _of_torch(folder: VisionFolder | TimmFolder, name: str) -> Any:
    """Return something that needs torch.

    Raises:
      ModelError: torch is not here.
    """
    try:
        return load(name)
    except ImportError as error:
        raise ModelError(
            f"{folder.path}: such a folder needs torch, which is not here ({error}); on a desk, "
            f"`edge-train export {folder.path} OUT.onnx --for backbone` makes a file that needs "
            "none."
        ) from error


def find_backbone(name: str, resolution: int | None, trained: int = 0) -> Backbone:
    """Return the backbone that a name means.

    Args:
      name: an .onnx file, a folder with one and its preprocessor_config.json, a folder of
        transformers or timm, or the hub id of one.
      resolution: side of pictures; None: that of the backbone.
      trained: last blocks of it that are trained.

    Raises:
      InputError: nothing was named, it has not so many blocks or none that can be trained, or it
        reads pictures of another size.
      ModelError: it is none, damaged, or a pickle.
    """
    if not name:
        raise InputError(
            "task 'images' needs --model with a frozen backbone: an .onnx file from pixels to "
            "features, or a folder or hub id of a vision model of transformers, such as "
            "facebook/dinov2-small; none is embedded. docs/tasks/images.md says how to get one."
        )
    path = Path(name).expanduser()
    if path.suffix in _PICKLES and path.exists():
        raise ModelError(
            f"{name} is a pickle file, which can run any code; convert it once, on a desk: "
            f"`edge-train export {name} {path.stem}.onnx --for backbone`, then run --model "
            f"{path.stem}.onnx."
        )
    inside = next((path / one for one in _IN_FOLDER if (path / one).is_file()), None)
    if inside is not None and not (path / "model.safetensors").is_file():
        return _frozen(_of_graph(read_picture_graph(inside), path, resolution), trained)
    if path.suffix.lower() == ".onnx":
        if not path.is_file():
            raise ModelError(f"{name}: there is no such file.")
        return _frozen(_of_graph(read_picture_graph(path), None, resolution), trained)
    folder, _ = find_folder(name)
    found = _of_folder(open_vision_folder(folder), resolution)
    if not isinstance(found.source, TimmFolder) or not trained:
        return _frozen(found, trained)
    row = _of_torch(found.source, f"{_TAIL}:rows_of")(found.source, trained)
    return replace(found, trained=trained, row=row)


def _frozen(found: Backbone, trained: int) -> Backbone:
    """Return a backbone of which nothing is trained.

    Raises:
      InputError: something is to be.
    """
    if trained:
        raise InputError(
            f"trained_blocks is {trained}, but {found.source.path} is not in timm's layout, whose "
            "last blocks alone are trained; leave it out, or name a folder of timm."
        )
    return replace(found, row=found.width)


def _of_graph(graph: PictureGraph, folder: Path | None, resolution: int | None) -> Backbone:
    side = graph.side or resolution or _SIDE
    if resolution is not None and resolution != side:
        raise InputError(
            f"resolution is {resolution}, but {graph.path} reads pictures of {side} pixels; leave "
            f"it out, or export the backbone again with --resolution {resolution}."
        )
    normal = None
    if folder is not None and not graph.is_ours:
        normal = normalization(folder)
    notes: tuple[str, ...] = ()
    if normal is None and not graph.is_ours:
        notes = (
            f"{graph.path.name} is given pixels from 0 to 255; if it wants them normalized, put it "
            f"as model.onnx in a folder with its {PREPROCESSOR}, and name the folder",
        )
    return Backbone(graph, "onnx", side, graph.width, normal, notes)


def _of_folder(folder: VisionFolder | TimmFolder, resolution: int | None) -> Backbone:
    if resolution is not None and resolution != folder.side:
        raise InputError(
            f"resolution is {resolution}, but {folder.path} reads pictures of {folder.side} "
            "pixels; leave it out."
        )
    notes = (f"{folder.path}: {folder.assumed}",) if folder.assumed else ()
    return Backbone(folder, "torch", folder.side, folder.width, None, notes)
