"""Whether the arrays of an index fit each other: an index that somebody gave is not believed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.projections import ACTIVATIONS
from edge_train.tasks.retrieve.index import PRODUCTS

_MOST = 1e6  # of any number; those of tokens and heads are about 1
Tensors = Mapping[str, NDArray[Any]]
_TYPES: Mapping[str, Any] = {
    "centroids": np.float32,
    "scale": np.float32,
    "list_starts": np.int64,
    "list_passages": np.int32,
    "starts": np.int64,
    "sums": np.int64,
    "owners": np.int32,
    "lines": np.int64,
}


def check_index(tensors: Tensors, activation: str) -> int:
    """Return how many numbers of a token the head reads.

    Args:
      tensors: of index.safetensors, as `index.py` describes them.

    Raises:
      KeyError: an array is missing.
      ValueError: one is of another type or shape, or says what cannot be.
    """
    for name, wanted in _TYPES.items():
        sides = 2 if name == "centroids" else 1
        found = tensors[name]
        _need(found.dtype == wanted and found.ndim == sides, f"{name} is of another type")
    lists, width = tensors["centroids"].shape
    passages = len(tensors["owners"])
    _need(lists > 0 and width > 0 and passages > 0, "it is empty")
    _need(tensors["scale"].shape == (width,), "scales are of no centroids")
    for name in ("centroids", "scale"):
        _need(_bounded(tensors[name]), f"{name} are of no tokens of length 1")
    _need(tensors["sums"].shape == (passages,), "there is not one checksum a passage")
    _need(bool((tensors["owners"] >= 0).all()), "a passage is of no document")
    for name, count, end in (
        ("starts", passages, None),
        ("lines", passages, None),
        ("list_starts", lists, len(tensors["list_passages"])),
    ):
        _check_starts(name, tensors[name], count, end)
    _need(bool((np.diff(tensors["starts"]) > 0).all()), "a passage has no token")
    inside = (tensors["list_passages"] >= 0) & (tensors["list_passages"] < passages)
    _need(bool(inside.all()), "a list names a passage that is not there")
    _need(activation in ACTIVATIONS, f"activation {activation[:40]!r}")
    return _check_head(tensors, width)


def _check_starts(name: str, starts: NDArray[Any], count: int, end: int | None) -> None:
    """Refuse what does not lead from 0 to an end without going back."""
    _need(starts.shape == (count + 1,) and starts[0] == 0, f"{name} do not begin at 0")
    _need(bool((starts[1:] >= starts[:-1]).all()), f"{name} go back")
    _need(end is None or int(starts[-1]) == end, f"{name} end elsewhere")


def _check_head(tensors: Tensors, width: int) -> int:
    products = {name: tensors.get(f"head/{name}") for name in PRODUCTS}
    there = {name: value for name, value in products.items() if value is not None}
    for name, value in there.items():
        fits = value.dtype == np.float32 and value.ndim == 2 and _bounded(value)
        _need(fits, f"the head's {name} is no matrix of numbers below {_MOST:g}")
    bent = {"up", "out"} <= set(there)
    _need(bent or set(there) == {"direct"}, "the head lacks a product")
    first = there["up"] if bent else there["direct"]
    hidden = first.shape[1]
    shapes = {"direct": (width, hidden), "up": (len(first), hidden), "gate": (len(first), hidden)}
    shapes["out"] = (width, len(first))
    for name, value in there.items():
        _need(value.shape == shapes[name], f"the head's {name} does not fit the others")
    return int(hidden)


def _bounded(values: NDArray[Any]) -> bool:
    """Return whether all numbers are finite, and too small for any product to overflow."""
    return bool((np.abs(values) < _MOST).all())


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
