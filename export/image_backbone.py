"""A frozen backbone of pictures as one ONNX file: pixels from 0 to 255 in, features out.

The one place where a `.pth` becomes something else, once, on a desk: that of EfficientNet-Lite0, by
`efficient_net.read`, with `weights_only=True`, so that nothing in it is ever executed.
"""

from pathlib import Path
from typing import Any

import torch
from onnxscript import optimizer
from torch import Tensor, nn

from edge_train.errors import ModelError
from edge_train.export.efficient_net import EfficientNetLite0, read
from edge_train.export.quiet import quiet
from edge_train.formats.atomic import write_bytes
from edge_train.formats.picture_graph import FEATURES, PIXELS

_OPSET, _IR_VERSION = 18, 9


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


def lite_network(path: Path) -> nn.Module:
    """Return EfficientNet-Lite0 of its published file, on pixels from 0 to 255.

    Raises:
      InputError: the file is another one.
    """
    return _Lite(read(path))


def write_backbone(network: nn.Module, side: int, out: Path) -> None:
    """Write a network from pixels (n, side, side, 3) to features (n, width) as one ONNX file.

    Raises:
      ModelError: torch cannot follow it.
      RunFolderError: the file cannot be written.
    """
    with quiet():
        try:
            program = torch.onnx.export(
                network.eval().requires_grad_(False),
                (torch.zeros(2, side, side, 3),),
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
                f"{out}: torch {torch.__version__} cannot write this network as a graph "
                f"({reason}); train on its folder itself, with torch."
            ) from error
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        optimizer.optimize_ir(program.model)
        program.model.ir_version = _IR_VERSION
        content = program.model_proto.SerializeToString()
    write_bytes(out, content)
