"""A frozen backbone of pictures as one ONNX file: pixels from 0 to 255 in, features out."""

from pathlib import Path

import torch
from onnxscript import optimizer
from torch import nn

from edge_train.errors import ModelError
from edge_train.export.quiet import quiet
from edge_train.formats.atomic import write_bytes
from edge_train.formats.picture_graph import FEATURES, PIXELS

_OPSET, _IR_VERSION = 18, 9


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
