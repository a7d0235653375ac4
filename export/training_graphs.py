"""Training, evaluation and optimizer graphs of a classifier, by onnxruntime-training's own tools.

Two of its demands are met here. It reads graphs of IR version 10 at most but writes `onnx`'s newest
unless `onnx.IR_VERSION` says otherwise, which is set for the call and put back. And it
differentiates a LayerNormalization by two outputs that exporters leave out: they are added.
"""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from edge_train.arrays.types import Array
from edge_train.errors import ModelError
from edge_train.export.quiet import quiet

OPSET = 18
IR_VERSION = 9
_STANDARD_ERROR = 2  # its file descriptor
_BATCH, _LENGTH = 2, 8  # of the example that is traced; both stay free in the graph
_INPUTS = ("ids", "mask", "labels")
_TYPES = "types"  # of networks that want to know which text of a pair an id belongs to
_OUTPUTS = ("loss", "losses", "logits")


def trace(
    network: nn.Module, positions: int, *, takes_types: bool
) -> tuple[ir.Model, tuple[str, ...]]:
    """Return the graph of a classifier and its loss, and the names of its parameters in order.

    Parameters keep their names and have no values: `with_values` adds them.

    Args:
      network: a transformers sequence classifier with eager attention, which is differentiable
        there; parameters may be of any kind.
      positions: ids in a text at most.
      takes_types: whether the graph has `types` as a fourth input.

    Raises:
      ModelError: the exporter cannot follow this network.
    """
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=positions)
    ids = torch.ones(_BATCH, _LENGTH, dtype=torch.int64)
    axes = {0: batch, 1: length}
    given = [ids, ids.clone(), torch.zeros(_BATCH, dtype=torch.int64)]
    shapes, names_in = [axes, axes, {0: batch}], list(_INPUTS)
    if takes_types:
        given.append(torch.zeros_like(ids))
        shapes.append(axes)
        names_in.append(_TYPES)
    with quiet():
        try:
            program = torch.onnx.export(
                _WithLoss(network).eval().requires_grad_(False),
                tuple(given),
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                input_names=names_in,
                output_names=list(_OUTPUTS),
                # of those of `forward`, of which `given` is one variable list
                dynamic_shapes=(tuple(shapes),),
                verbose=False,
            )
        except Exception as error:  # the exporter's errors share no base class
            raise ModelError(
                f"this network cannot be exported ({_first_line(error)}); train it with "
                "--runtime torch."
            ) from error
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        model: ir.Model = program.model
        prefix = "network."
        wanted = {f"{prefix}{name}" for name, _ in network.named_parameters()}
        names = []
        for value in list(model.graph.initializers.values()):
            if value.name in wanted:
                model.graph.initializers.pop(value.name)
                value.name = value.name.removeprefix(prefix)
                value.const_value = None  # so that the optimizer leaves it alone
                model.graph.initializers[value.name] = value
                names.append(value.name)
        optimizer.optimize_ir(model)
    model.ir_version = IR_VERSION
    return model, tuple(name for name in names if name in model.graph.initializers)


def write_training_graphs(
    folder: Path,
    graph: ir.Model,
    blocks: dict[str, Array],
    trainable: Collection[str],
    frozen: Collection[str],
) -> None:
    """Write the three graphs and the checkpoint into `folder`.

    Raises:
      ModelError: the network holds an operator that cannot be differentiated.

    Memory:
      Two or three copies of the parameters.
    """
    for name in (*trainable, *frozen):
        graph.graph.initializers[name].const_value = ir.tensor(blocks[name], name=name)
    model = ir.to_proto(graph)
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose Python code it came from
        if node.op_type == "LayerNormalization" and len(node.output) == 1:
            node.output.extend([f"{node.output[0]}_mean", f"{node.output[0]}_deviation"])
    from onnxruntime.training import artifacts

    version = onnx.IR_VERSION
    onnx.IR_VERSION = IR_VERSION  # type: ignore[assignment]
    try:
        with _no_standard_error():
            artifacts.generate_artifacts(
                model,
                requires_grad=list(trainable),
                frozen_params=list(frozen),
                loss=None,
                optimizer=artifacts.OptimType.AdamW,
                artifact_directory=str(folder),
            )
    except Exception as error:  # the gradient builder raises RuntimeError and its own kinds
        raise ModelError(
            f"onnxruntime-training cannot differentiate this network ({_first_line(error)}); "
            "train it with --runtime torch."
        ) from error
    finally:
        onnx.IR_VERSION = version


class _WithLoss(nn.Module):
    """A classifier, the cross-entropy of every text and the mean of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, losses and logits of ids, mask, labels and, where given, types."""
        ids, mask, labels, *types = given
        named = {"token_type_ids": types[0]} if types else {}
        output: Any = self.network(input_ids=ids, attention_mask=mask, **named)
        logits: Tensor = output.logits
        # the logarithm times one-hot labels: a gather of it has no gradient there
        chosen = nn.functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        losses = -(torch.log_softmax(logits, -1) * chosen).sum(-1)
        return losses.mean(), losses, logits


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Hold back what the engine's optimizer writes there, whatever its log level; then undo it."""
    sys.stderr.flush()
    kept = os.dup(_STANDARD_ERROR)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), _STANDARD_ERROR)
        yield
    finally:
        os.dup2(kept, _STANDARD_ERROR)
        os.close(kept)
