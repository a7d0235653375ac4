"""How an artifact with integer products is opened, so that its sums are exact on this processor."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_train.errors import InputError
from edge_train.formats.artifact import Artifact, ArtifactTensor
from edge_train.formats.onnx_products import CONVOLUTION, LINEAR
from edge_train.quant import FLOAT_PRODUCTS, SEVEN_BIT_PRODUCTS, quants
from edge_train.runtimes.onnx.engine import load_engine
from edge_train.runtimes.onnx.product_probe import PRECISE, wrong_by

_SEVEN_BITS, _EIGHT_BITS = 64, 127  # largest magnitude of a weight
# The first engine whose session option was seen to give exact sums; those up to 1.24.1 end the
# process when they are asked, so an engine between them is not asked either.
_PRECISE_SINCE = (1, 32)
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Opening:
    """What a session of the step graph needs for exact sums.

    Attributes:
      options: session options beside the manifest's.
      rewritten_bytes: of weights that the engine writes anew when it opens the graph, and holds.
      note: what a user should know; empty if there is nothing.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    rewritten_bytes: int = 0
    note: str = ""


def exact_opening(artifact: Artifact) -> Opening:
    """Return how to open the step graph, after its operators were tried on extreme values.

    A graph of float products costs nothing. Others cost a few milliseconds; an artifact whose
    manifest does not say what it multiplies is read once, a megabyte at a time, if this processor
    cuts off sums of 8-bit weights.

    Raises:
      InputError: no way to open it gives exact sums here.
    """
    manifest = artifact.manifest
    said = manifest.products or quants.get(manifest.quant).products
    if said == FLOAT_PRODUCTS:
        return Opening()
    engine, found = load_engine(), artifact.integer_products
    largest = _SEVEN_BITS if manifest.products == SEVEN_BIT_PRODUCTS else _EIGHT_BITS
    error = wrong_by(engine, found.operators, largest, precise=False)
    tensors = [t for t in manifest.tensors if t.file == "step.weights" and t.name in found.weights]
    if error and largest > _SEVEN_BITS:
        largest = _largest(artifact.path, tensors)
        error = wrong_by(engine, found.operators, largest, precise=False)
    if not error:
        return Opening()
    if may_ask(engine) and not wrong_by(engine, found.operators, largest, precise=True):
        return Opening(
            {PRECISE: "1"},
            sum(tensor.bytes for tensor in tensors),
            f"this processor cuts off sums of weights up to {largest} (an extreme one by "
            f"{error:,}), so the engine makes them unsigned when it opens the artifact: exact, but "
            f"slower and held twice. {_again(artifact)} writes weights of 7 bits.",
        )
    raise InputError(
        f"artifact {artifact.path} has weights up to {largest} in its integer products; this "
        f"processor cuts off their sums (an extreme one by {error:,}), and ONNX Runtime "
        f"{engine.__version__} has no exact way to open it ({_since()} has). {_again(artifact)} "
        "writes weights of 7 bits, exact on every processor."
    )


def examine() -> str:
    """Return whether integer products are exact here, for `edge-train doctor`."""
    engine, operators = load_engine(), frozenset((LINEAR, CONVOLUTION))
    if not wrong_by(engine, operators, _EIGHT_BITS, precise=False):
        return "integer products are exact here, with 7-bit and with 8-bit weights"
    if wrong_by(engine, operators, _SEVEN_BITS, precise=False):
        return (
            "integer products are WRONG here: int8-fast and int4 are refused; export with --quant "
            "int8"
        )
    older = "opened in a slower exact way" if may_ask(engine) else "refused"
    return (
        "integer products are exact here with the 7-bit weights that exports write; this processor "
        f"cuts off sums of 8-bit weights, so artifacts that have them are {older}"
    )


def _again(artifact: Artifact) -> str:
    origin, quant = artifact.manifest.origin["model"], artifact.manifest.quant
    return f"`edge-train export {origin} OUT --quant {quant}`"


def _since() -> str:
    return ".".join(map(str, _PRECISE_SINCE))


def may_ask(engine: Any) -> bool:
    """Return whether an engine can be asked for unsigned weights without ending the process."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", engine.__version__)[:2])
    return numbers >= _PRECISE_SINCE


def _largest(folder: Path, tensors: Sequence[ArtifactTensor]) -> int:
    """Return the largest magnitude of 8-bit weights."""
    largest = 0
    for tensor in tensors:
        with (folder / tensor.file).open("rb") as file:
            file.seek(tensor.offset)
            left = tensor.bytes
            while left and (block := file.read(min(left, _BLOCK_BYTES))):
                left -= len(block)
                numbers = np.frombuffer(block, np.int8)
                largest = max(largest, int(numbers.max()), -int(numbers.min()))
    return largest
