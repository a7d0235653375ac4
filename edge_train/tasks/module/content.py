"""A hash of what a batch holds, whatever it is made of: the same in every process."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def hash_of(value: Any) -> str:
    """Return the hash of nested lists and mappings of arrays, tensors, numbers and texts.

    Of an object of any other kind only the name of its class counts.

    >>> hash_of([1, "a"]) == hash_of([1, "a"]), hash_of([1]) == hash_of([2])
    (True, False)
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    yield type(value).__name__.encode()
    if hasattr(value, "detach"):  # a tensor; torch is not imported to ask
        value = value.detach().cpu()
        yield repr((str(value.dtype), tuple(value.shape))).encode()
        yield from _parts(value.float().numpy() if value.is_floating_point() else value.numpy())
    elif isinstance(value, np.ndarray):
        yield repr((value.dtype.str, value.shape)).encode()
        yield np.ascontiguousarray(value).tobytes()
    elif value is None or isinstance(value, str | bytes | int | float | bool | np.generic):
        yield repr(value).encode()
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield repr(key).encode()
            yield from _parts(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _parts(one)
