"""What `--quant` names: a record of a way to hold weights in few bits.

One name may stand for weights of a model folder that are quantised when a run starts, for weights
that training changes, and for an artifact's profile; the record says what each of them is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_train.registry import Registry

# How an artifact multiplies, as its manifest says it.
FLOAT_PRODUCTS = "float"
# Two products of 255 and 64 fit into 16 signed bits, in which a processor may add them.
SEVEN_BIT_PRODUCTS = "uint8 x 7-bit"
# What a call of an artifact that rounds activations may hold beside one loss: the same sample at
# the other points of a step. They then share the scales that are found on the fly.
POINTS_OF_A_SAMPLE = "points of a sample"


@dataclass(frozen=True, kw_only=True)
class Quant:
    """A quantisation.

    Attributes:
      name: what `--quant` says.
      says: a line for people.
      weight_bytes: of one weight of a model folder, as a run holds it.
      artifact_bytes: of one weight on disk, as an export writes it.
      rounds_activations: an artifact of it computes with rounded activations, so that slopes carry
        noise of one size: more directions a step, and the processor's own kernels.
      products: what an artifact of it multiplies, in its manifest's words: integer products are
        tried on extreme values when the artifact is opened.
      calls: what a call of an artifact of it holds, in its manifest's words; empty: what it likes.
      calibrated: an export measures the ranges of activations first.
      writer: "module:function" that writes the nodes of a graph with their weights; None: no
        artifact has it.
      trained: "module:class" of the parameters that training changes, made from blocks; None: they
        cannot be trained.
      torch_type: optimum-quanto's name of it for frozen weights on torch; None: it has none.
      serves: pairs of task and engine that may hold weights so, beside those whose `Use` says it.
    """

    name: str
    says: str
    weight_bytes: float
    artifact_bytes: float = 4.0
    rounds_activations: bool = False
    products: str = FLOAT_PRODUCTS
    calls: str = ""
    calibrated: bool = False
    writer: str | None = None
    trained: str | None = None
    torch_type: str | None = None
    serves: tuple[tuple[str, str], ...] = ()


_WRITERS = "edge_train.export.quantized_graphs"
_TRAINED = "edge_train.arrays.parameters"
QUANTS = (
    Quant(
        name="none",
        says="float weights",
        weight_bytes=4.0,
        artifact_bytes=4.0,
        writer=f"{_WRITERS}:write_float",
        trained=f"{_TRAINED}:Parameters",
    ),
    Quant(
        name="int8",
        says="8-bit weights, float activations",
        weight_bytes=1.0,
        artifact_bytes=1.05,
        writer=f"{_WRITERS}:write_int8",
        trained=f"{_TRAINED}:Int8Parameters",
        torch_type="qint8",
    ),
    Quant(
        name="int8-fast",
        says="8-bit weights and activations, of exported models",
        weight_bytes=1.0,
        artifact_bytes=1.05,
        rounds_activations=True,
        products=SEVEN_BIT_PRODUCTS,
        calls=POINTS_OF_A_SAMPLE,
        calibrated=True,
        writer=f"{_WRITERS}:write_int8_fast",
    ),
    Quant(
        name="int4",
        says="4-bit weights; of exported models also 8-bit activations",
        weight_bytes=0.5,
        artifact_bytes=0.8,
        rounds_activations=True,
        products=SEVEN_BIT_PRODUCTS,
        calls=POINTS_OF_A_SAMPLE,
        calibrated=True,
        writer=f"{_WRITERS}:write_int4",
        trained=f"{_TRAINED}:Int4Parameters",
        torch_type="qint4",
    ),
)
quants: Registry[Quant] = Registry("quantisation", "edge_train.quant", "QUANTS")


def names_with(has: Callable[[Quant], Any]) -> tuple[str, ...]:
    """Return the names of the quantisations for which `has` is true.

    >>> names_with(lambda quant: quant.rounds_activations)
    ('int8-fast', 'int4')
    """
    return tuple(quant.name for quant in quants.all().values() if has(quant))


def of_artifacts() -> tuple[str, ...]:
    """Return the names of the quantisations that an export can write."""
    return names_with(lambda quant: quant.writer)
