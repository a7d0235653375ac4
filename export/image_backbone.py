"""A frozen backbone of pictures as one ONNX file: pixels from 0 to 255 in, features out.

The one place where a `.pth` is read, once, on a desk: that of EfficientNet-Lite0, with
`weights_only=True`, so that nothing in it is ever executed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from onnxscript import optimizer
from torch import Tensor, nn

from edge_train.errors import InputError, ModelError
from edge_train.export.efficient_net import FEATURES as LITE_FEATURES
from edge_train.export.efficient_net import EfficientNetLite0, read
from edge_train.export.quiet import quiet
from edge_train.formats.atomic import write_bytes
from edge_train.formats.hub import find_folder
from edge_train.formats.picture_graph import FEATURES, PIXELS, read_picture_graph
from edge_train.formats.vision_folder import open_vision_folder
from edge_train.runtimes.torch.pictures import VisionNetwork
from edge_train.units import format_bytes

_OPSET, _IR_VERSION = 18, 9
_LITE_SIDE = 224
_FILES = (".pth", ".pt")
_LEAST_SIDE, _MOST_SIDE = 32, 1024


class _Lite(nn.Module):
    """EfficientNet-Lite0 on pixels (n, side, side, 3) from 0 to 255."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self._places = {name: name.replace(".", "_") for name in network.weights}
        for name, value in network.weights.items():
            self.register_buffer(self._places[name], value.float())

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features (n, 1280)."""
        weights: Any = {name: getattr(self, place) for name, place in self._places.items()}
        values = (pixels / 127.5 - 1).permute(0, 3, 1, 2)
        found: Tensor = EfficientNetLite0(weights)(values)
        return found


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
    if path.suffix in _FILES:
        side, width = resolution or _LITE_SIDE, LITE_FEATURES
        network: nn.Module = _Lite(read(path))
    else:
        folder = open_vision_folder(find_folder(source)[0])
        side, width = resolution or folder.side, folder.width
        network = VisionNetwork(folder)
    if not _LEAST_SIDE <= side <= _MOST_SIDE:
        raise InputError(f"--resolution {side}: from {_LEAST_SIDE} to {_MOST_SIDE} pixels.")
    write_bytes(out, _graph(network, side, source))
    graph = read_picture_graph(out)
    if graph.width != width:
        raise ModelError(f"{source}: it gives {graph.width} features, expected {width}.")
    size = format_bytes(out.stat().st_size)
    say(f"{out}: {size}; pictures of {side} pixels to {width} features")
    say(f"edge-train run PHOTOS --task images --model {out}")


def _graph(network: nn.Module, side: int, source: str) -> bytes:
    """Return the file of a network from pixels to features, for any number of pictures."""
    example = torch.zeros(2, side, side, 3)
    with quiet():
        try:
            program = torch.onnx.export(
                network.eval().requires_grad_(False),
                (example,),
                dynamo=True,
                optimize=False,
                opset_version=_OPSET,
                input_names=[PIXELS],
                output_names=[FEATURES],
                dynamic_shapes=({0: torch.export.Dim("pictures")},),
                verbose=False,
            )
        except Exception as error:  # the exporter's errors share no base class
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"{source}: torch {torch.__version__} cannot write it as a graph ({reason}); train "
                "on the folder itself, with torch."
            ) from error
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        optimizer.optimize_ir(program.model)
        program.model.ir_version = _IR_VERSION
        content: bytes = program.model_proto.SerializeToString()
    return content
