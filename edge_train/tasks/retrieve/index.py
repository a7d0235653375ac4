"""The index of a run: INT8 residuals of every token, found through lists of centroids.

A folder of three files:

    index.safetensors   metadata `format`, `version`, `encoder` (its hash) and `activation`; the
                        head that queries go through, folded: some of head/direct, head/up,
                        head/gate and head/out; centroids (lists, width) and scale (width,)
                        float32; lists: list_starts (lists + 1,) int64 and list_passages int32, the
                        passages of each centroid in order; starts (passages + 1,) int64, where the
                        tokens of each begin; sums (passages,) int64, the CRC-32 of each one's
                        record; owners (passages,) int32, its document; lines (passages + 1,)
                        int64, where each text begins
    tokens.bin          a record for each passage of t tokens: t numbers of centroids, uint16,
                        little end first, then t times `width` codes, int8. A token is its centroid
                        + scale * codes
    passages.jsonl      name, title and text of each passage, a JSON line each

Source: ColBERTv2 (arXiv:2112.01488), centroids and residuals; we keep a byte of each residual, not
one or two bits, because the passages of one person are few.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.projections import Folded
from edge_train.arrays.types import Array
from edge_train.formats.atomic import write_parts
from edge_train.formats.tensor_store import save_tensors
from edge_train.rng import Key

PRODUCTS = ("direct", "up", "gate", "out")  # of a folded head
FORMAT, VERSION = "edge-train retrieval index", "1"
HEAD, CODES = "index.safetensors", "tokens.bin"
_SAMPLE = 1 << 16  # tokens that centroids are found on
_PER_LIST = 16  # of these for each centroid at least
_MOST_LISTS = 4096
_ROUNDS = 6
_PRODUCTS = 1 << 22  # at once: 17 MB
_KEY = Key(0, -6)  # what the sample and the first centroids are drawn by
_MOST_CODE = 127
_SOME = 4096  # tokens of a sample whose residuals exist at once


class Tokens(Protocol):
    """Passages whose tokens are of length 1."""

    def tokens(self, first: int, last: int) -> tuple[Array, NDArray[np.int64]]:
        """Return the tokens of neighbouring passages and where each passage begins, and the end."""
        ...

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield all passages in order, a few at a time."""
        ...


@dataclass(frozen=True)
class Quantizer:
    """Centroids (lists, width), and what a code of a residual is worth in each place (width,)."""

    centroids: Array
    scale: Array

    def encode(self, tokens: Array) -> tuple[NDArray[np.uint16], NDArray[np.int8]]:
        """Return the nearest centroid and the residual's codes of tokens (tokens, width)."""
        nearest = assign(tokens, self.centroids)
        codes = np.rint((tokens - self.centroids[nearest]) / self.scale)
        np.clip(codes, -_MOST_CODE, _MOST_CODE, out=codes)
        return nearest.astype(np.uint16), codes.astype(np.int8)

    def decode(self, nearest: NDArray[np.uint16], codes: NDArray[np.int8]) -> Array:
        """Return tokens as they are stored."""
        tokens: Array = codes.astype(np.float32)
        tokens *= self.scale
        tokens += self.centroids[nearest]
        return tokens


def assign(tokens: Array, centroids: Array) -> NDArray[np.int64]:
    """Return the nearest centroid of each token.

    Memory: `_PRODUCTS` products of tokens with centroids.
    """
    half = np.square(centroids).sum(axis=1) / 2
    found = np.empty(len(tokens), np.int64)
    step = max(1, _PRODUCTS // len(centroids))
    for start in range(0, len(tokens), step):
        products = tokens[start : start + step] @ centroids.T
        products -= half
        found[start : start + step] = products.argmax(axis=1)
    return found


def quantizer_of(sample: Array, tokens: int) -> Quantizer:
    """Return centroids by k-means on a sample, and scales from its residuals.

    There are about 2 * sqrt(tokens) of them, a power of two, where PLAID takes 16 * sqrt(tokens):
    the residuals are finer here. One that loses all tokens stays where it was.

    Args:
      sample: (some, width).
      tokens: how many there are in all.
    """
    wanted = 1 << round(np.log2(max(2.0 * np.sqrt(tokens), 1.0)))
    lists = int(min(wanted, _MOST_LISTS, max(1, len(sample) // _PER_LIST)))
    first = _KEY.generator("centroids").permutation(len(sample))[:lists]
    centroids = sample[np.sort(first)].copy()
    for _ in range(_ROUNDS):
        nearest = assign(sample, centroids)
        order = np.argsort(nearest, kind="stable")
        there, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts, axis=0)
        counts = np.diff([*starts, len(sample)])
        centroids[there] = sums / counts[:, None].astype(np.float32)
    nearest, residuals = assign(sample, centroids), np.full(sample.shape[1], 1e-6, np.float32)
    for start in range(0, len(sample), _SOME):
        at = slice(start, start + _SOME)
        apart = np.abs(sample[at] - centroids[nearest[at]])
        np.maximum(residuals, apart.max(axis=0), out=residuals)
    return Quantizer(centroids, residuals / np.float32(_MOST_CODE))


def sample_of(source: Tokens, counts: NDArray[np.int64]) -> Array:
    """Return tokens of passages that are drawn, at most `_SAMPLE` of them.

    Args:
      counts: tokens of each passage.
    """
    order = _KEY.generator("sample").permutation(len(counts))
    reach = int(np.searchsorted(np.cumsum(counts[order]), _SAMPLE, side="right"))
    chosen = np.sort(order[: max(reach, 1)])
    return np.concatenate([source.tokens(int(n), int(n) + 1)[0] for n in chosen])[:_SAMPLE]


def write_index(
    folder: Path,
    source: Tokens,
    counts: NDArray[np.int64],
    owners: NDArray[np.int32],
    lines: NDArray[np.int64],
    head: Folded,
    encoder: str,
) -> int:
    """Write the index of passages beside their texts; return its bytes without these.

    Args:
      counts: tokens of each passage.
      head: that made the passages' tokens; it is kept, for queries.
      encoder: the hash of what stands below it.

    Memory: the sample, centroids, a number for each token, and a few passages.
    """
    quantizer = quantizer_of(sample_of(source, counts), int(counts.sum()))
    sums: list[int] = []
    numbers: list[NDArray[np.uint16]] = []

    def records() -> Iterator[bytes]:
        for first, last in source.runs():
            tokens, starts = source.tokens(first, last)
            nearest, codes = quantizer.encode(tokens)
            numbers.append(nearest)
            for a, b in pairwise(starts.tolist()):
                record = nearest[a:b].astype("<u2").tobytes() + codes[a:b].tobytes()
                sums.append(zlib.crc32(record))
                yield record

    write_parts(folder / CODES, records())
    lists = _lists(np.concatenate(numbers), counts, len(quantizer.centroids))
    tensors: dict[str, NDArray[Any]] = {
        "centroids": quantizer.centroids,
        "scale": quantizer.scale,
        "list_starts": lists[0],
        "list_passages": lists[1],
        "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "sums": np.array(sums, np.int64),
        "owners": owners,
        "lines": lines,
    }
    for name in PRODUCTS:
        if (matrix := getattr(head, name)) is not None:
            tensors[f"head/{name}"] = np.ascontiguousarray(matrix)
    about = {"activation": head.activation, "encoder": encoder}
    save_tensors(folder / HEAD, tensors, {"format": FORMAT, "version": VERSION, **about})
    return sum((folder / name).stat().st_size for name in (HEAD, CODES))


def _lists(
    nearest: NDArray[np.uint16], counts: NDArray[np.int64], lists: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return where each centroid's list begins, and all lists: passages that have it, once each."""
    passages = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    pairs = np.unique(nearest.astype(np.int64) * len(counts) + passages)
    owners, found = np.divmod(pairs, len(counts))
    return np.searchsorted(owners, np.arange(lists + 1)), found.astype(np.int32)
