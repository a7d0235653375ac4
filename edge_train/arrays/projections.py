"""Projections of late interaction: from a token's hidden values to the few that are compared.

Every kind is, folded, the same three products: y = D x + O (act(U x) * V x), of which a kind may
lack any. A purely linear stack folds to D alone, so it costs what one matrix costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_train.arrays.types import Array
from edge_train.rng import Key

KINDS = ("linear", "ffn", "glu", "residual", "upscaled")
ACTIVATIONS = ("silu", "relu", "identity")
UPSCALE = 2  # times the hidden width, inside of kind "upscaled"
_START = -5  # the step of the key that start values are drawn from

Shapes = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Folded:
    """The matrices of a projection as it is computed; None: this kind has no such product.

    Attributes:
      direct: D, (outputs, width).
      up: U, (inner, width), whose product goes through the activation.
      gate: V, (inner, width), a factor of it.
      out: O, (outputs, inner).
    """

    activation: str
    direct: Array | None
    up: Array | None = None
    gate: Array | None = None
    out: Array | None = None


def shapes_of(kind: str, width: int, outputs: int) -> Shapes:
    """Return the parameters of a kind, each (outputs, inputs) as torch has them; no biases.

    Source: arXiv:2510.12327. linear: W x. ffn: out act(up x). glu: out (up x * act(gate x)).
    residual: out (x + act(up x)). upscaled: out (skip x + act(up x)), twice as wide inside.

    >>> shapes_of("upscaled", 4, 2)
    {'up': (8, 4), 'skip': (8, 4), 'out': (2, 8)}
    """
    inner = UPSCALE * width if kind == "upscaled" else width
    found: Shapes = {} if kind == "linear" else {"up": (inner, width)}
    if kind == "glu":
        found["gate"] = (inner, width)
    if kind == "upscaled":
        found["skip"] = (inner, width)
    return {**found, "out": (outputs, inner)}


def start_values(kind: str, directions: Array, seed: int) -> dict[str, Array]:
    """Return the parameters that training begins with.

    Where a kind has a linear path it begins as the linear projection on the principal directions
    of the tokens, so that a head retrieves before it has learned; the others begin as near to it
    as they can. The paper starts from random numbers.

    Args:
      directions: (outputs, width), orthonormal rows.
    """
    outputs, width = directions.shape
    shapes = shapes_of(kind, width, outputs)
    draw = Key(seed, _START).generator("projection", kind)
    eye = np.eye(width, dtype=np.float32)
    if kind == "linear":
        return {"out": directions.copy()}
    if kind == "ffn":
        return {"up": eye, "out": 2 * directions}  # the slope of silu at 0 is a half
    if kind == "glu":
        gate = draw.standard_normal(shapes["gate"], np.float32) / np.float32(np.sqrt(width))
        return {"up": eye, "gate": gate, "out": directions.copy()}
    up = np.zeros(shapes["up"], np.float32)
    if kind == "residual":
        return {"up": up, "out": directions.copy()}
    skip = np.linalg.qr(draw.standard_normal(shapes["skip"]))[0].astype(np.float32)
    return {"up": up, "skip": skip, "out": directions @ skip.T}


def folded(kind: str, activation: str, values: Mapping[str, Array]) -> Folded:
    """Return the products that a projection comes to."""
    out = values["out"]
    if kind == "linear":
        return Folded(activation, out)
    up = values["up"]
    if kind == "glu":
        return Folded(activation, None, values["gate"], up, out)
    direct = {"ffn": None, "residual": out}.get(kind)
    if kind == "upscaled":
        direct = out @ values["skip"]
    if activation == "identity":
        stack = out @ up
        return Folded(activation, stack if direct is None else direct + stack)
    return Folded(activation, direct, up, None, out)


def project(head: Folded, tokens: Array) -> Array:
    """Return the projections (tokens, outputs) of hidden values (tokens, width)."""
    total = None if head.direct is None else tokens @ head.direct.T
    if head.up is not None and head.out is not None:
        inner = _activated(head.activation, tokens @ head.up.T)
        if head.gate is not None:
            inner *= tokens @ head.gate.T
        bent = inner @ head.out.T
        total = bent if total is None else np.add(total, bent, out=total)
    assert total is not None
    return total


def gradient(head: Folded, tokens: Array, error: Array) -> Folded:
    """Return the gradient of each product's matrix for `error` (tokens, outputs)."""
    direct = None if head.direct is None else error.T @ tokens
    if head.up is None or head.out is None:
        return Folded(head.activation, direct)
    before = tokens @ head.up.T
    inner = _activated(head.activation, before)
    back: Array = error @ head.out
    gate: Array | None = None
    out: Array
    if head.gate is None:
        out = error.T @ inner
    else:
        factor = tokens @ head.gate.T
        out = error.T @ (inner * factor)
        through: Array = back * inner
        gate = through.T @ tokens
        back *= factor
    back *= _slope(head.activation, before)
    up: Array = back.T @ tokens
    return Folded(head.activation, direct, up, gate, out)


def unfolded(
    kind: str, activation: str, values: Mapping[str, Array], found: Folded
) -> dict[str, Array]:
    """Return the gradient of each parameter from that of the folded products."""
    out = values["out"]
    if kind == "linear":
        assert found.direct is not None
        return {"out": found.direct}
    up = values["up"]
    if kind == "glu":
        assert found.up is not None and found.gate is not None and found.out is not None
        return {"up": found.gate, "gate": found.up, "out": found.out}
    direct = found.direct
    if activation == "identity":
        assert direct is not None
        by_up, by_out = out.T @ direct, direct @ up.T
    else:
        assert found.up is not None and found.out is not None
        by_up, by_out = found.up, found.out
    if kind == "residual":
        assert direct is not None
        by_out = by_out + direct
    if kind != "upscaled":
        return {"up": by_up, "out": by_out}
    assert direct is not None
    return {"up": by_up, "skip": out.T @ direct, "out": by_out + direct @ values["skip"].T}


def operations(kind: str, activation: str, width: int, outputs: int) -> int:
    """Return the multiplications and additions of a token's folded projection."""
    shapes = shapes_of(kind, width, outputs)
    bent = 0
    if kind != "linear" and (activation != "identity" or kind == "glu"):
        inner = shapes["up"][0]
        bent = inner * (width * (2 if kind == "glu" else 1) + outputs)
    direct = 0 if kind == "glu" or (kind == "ffn" and bent) else width * outputs
    return 2 * (bent + direct)


def _activated(kind: str, values: Array) -> Array:
    """Return the activation of every number, in its place.

    >>> [round(value, 3) for value in _activated("silu", np.array([0.0, 2.0])).tolist()]
    [0.0, 1.762]
    """
    if kind == "relu":
        return np.maximum(values, np.float32(0), out=values.copy())
    if kind == "silu":
        return values * _sigmoid(values)
    return values.copy()


def _slope(kind: str, values: Array) -> Array:
    if kind == "relu":
        return (values > 0).astype(values.dtype)
    if kind == "silu":
        share = _sigmoid(values)
        return share * (1 + values * (1 - share))
    return np.ones_like(values)


def _sigmoid(values: Array) -> Array:
    """Return (1 + tanh(x / 2)) / 2, which cannot overflow."""
    found: Array = np.tanh(values * values.dtype.type(0.5))
    found += 1
    found *= values.dtype.type(0.5)
    return found
