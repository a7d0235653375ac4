"""A frozen text encoder as one ONNX graph: ids and mask in, the hidden values of tokens out."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_train.errors import ModelError
from edge_train.export.quiet import quiet
from edge_train.formats.atomic import write_bytes

_OPSET, _IR_VERSION = 18, 9
_BATCH, _LENGTH = 2, 8  # of the example that is traced; both stay free in the graph


class _Hidden(nn.Module):
    """The last hidden values alone."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return found


def write_encoder(path: Path, network: Any, positions: int) -> None:
    """Write `input_ids` and `attention_mask` (texts, tokens) int64 to `last_hidden_state`.

    Args:
      network: of transformers, without a head; eager attention, so that any engine has its parts.
      positions: tokens of a text at most.

    Raises:
      ModelError: the exporter cannot follow this network.
    """
    axes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=positions)}
    ids = torch.ones(_BATCH, _LENGTH, dtype=torch.int64)
    with quiet():
        try:
            program = torch.onnx.export(
                _Hidden(network).eval().requires_grad_(False),
                (ids, ids.clone()),
                dynamo=True,
                opset_version=_OPSET,
                input_names=["input_ids", "attention_mask"],
                output_names=["last_hidden_state"],
                dynamic_shapes=(axes, axes),
                verbose=False,
            )
        except Exception as error:  # the exporter's errors share no base class
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"this encoder cannot be exported ({reason}); run it with --runtime torch."
            ) from error
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        program.model.ir_version = _IR_VERSION
        content = program.model_proto.SerializeToString()
    write_bytes(path, content)
