"""`edge-train bench search-speed`: a query on one core among 100,000 made-up passages.

Passages are made of real ones: runs of eight tokens of the documents that `bench retrieve` encoded,
projected by an untrained head, with noise. Queries are the real ones. The encoder is timed apart:
its seconds are the same however many passages there are.
"""

import statistics
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_train import bench
from edge_train.arrays.projections import Folded, project
from edge_train.arrays.types import Array
from edge_train.errors import InputError
from edge_train.formats.atomic import write_parts
from edge_train.rng import Key
from edge_train.tasks.retrieve.corpus import START_FILE, TEXTS, Corpus, load_corpus
from edge_train.tasks.retrieve.finding import Index
from edge_train.tasks.retrieve.index import write_index
from edge_train.tasks.retrieve.job import INDEX_FOLDER
from edge_train.units import format_bytes

_PASSAGES = 100_000
_RUNS, _RUN = 4, 8  # of tokens in a passage
_NOISE = 0.35  # length of what is added to a vector of length 1
_QUERIES, _EXACT = 50, 30  # timed; compared with the exhaustive search, the last ones
_TOP = 10
_AT_ONCE = 500  # passages


class _MadeUp:
    """Passages that are drawn when they are asked for, the same each time."""

    def __init__(self, tokens: Array, passages: int) -> None:
        self._tokens, self._passages = tokens, passages
        self._block = lru_cache(maxsize=1)(self._drawn)

    def tokens(self, first: int, last: int) -> tuple[Array, NDArray[np.int64]]:
        parts = [
            self._block(block)[self._within(block, first, last)]
            for block in range(first // _AT_ONCE, (last - 1) // _AT_ONCE + 1)
        ]
        values = np.concatenate(parts).reshape(-1, self._tokens.shape[1])
        return values, np.arange(last - first + 1, dtype=np.int64) * (_RUNS * _RUN)

    def runs(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self._passages, _AT_ONCE):
            yield start, min(start + _AT_ONCE, self._passages)

    def _within(self, block: int, first: int, last: int) -> slice:
        return slice(max(first - block * _AT_ONCE, 0), min(last - block * _AT_ONCE, _AT_ONCE))

    def _drawn(self, block: int) -> Array:
        """Return passages (_AT_ONCE, tokens, width)."""
        draw = Key(0, block).generator("made up")
        starts = draw.integers(len(self._tokens) - _RUN, size=(_AT_ONCE, _RUNS))
        rows = (starts[..., None] + np.arange(_RUN)).reshape(_AT_ONCE, -1)
        values = self._tokens[rows]
        noise = draw.standard_normal(values.shape, np.float32)
        values = values + noise * np.float32(_NOISE / np.sqrt(values.shape[-1]))
        found: Array = values / np.linalg.norm(values, axis=-1, keepdims=True)
        return found


def main(out: Path, _: int, *, samples: int = _PASSAGES) -> str:
    """Return the table.

    Args:
      out: of `bench retrieve`, whose encoded documents are read.
      samples: passages.

    Raises:
      InputError: there are none.
    """
    place = out / "encoded"
    if not (place / START_FILE).is_file():
        raise InputError(f"{place}: nothing is encoded yet; run `edge-train bench retrieve` first.")
    corpus = load_corpus(place, place / INDEX_FOLDER)
    head = Folded("silu", corpus.start["out"] @ corpus.start.get("skip", np.float32(1)))
    vectors = corpus.vectors()
    texts = range(corpus.passages)
    source = _MadeUp(np.concatenate([_unit(head, vectors.text(n)) for n in texts]), samples)
    folder = out / f"index-{samples}"
    if not (folder / TEXTS).is_file():
        folder.mkdir(exist_ok=True)
        began = time.process_time()
        _write(folder, source, samples, head)
        (folder / "seconds").write_text(f"{time.process_time() - began:.0f}")
    index = Index(folder, TEXTS)
    queries = [_unit(head, vectors.text(int(n))) for n in _queries(corpus)]
    index.search(queries[0], _TOP)
    seconds = []
    for query in queries:
        began = time.process_time()
        index.search(query, _TOP)
        seconds.append(time.process_time() - began)
    shares = _shares(index, source, queries[-_EXACT:])
    size = sum(path.stat().st_size for path in folder.glob("*.*") if path.name != TEXTS)
    tokens = samples * _RUNS * _RUN
    row = (
        f"{samples:,}",
        f"{tokens:,}",
        f"{1000 * statistics.median(seconds):.0f}",
        f"{1000 * sorted(seconds)[int(0.95 * len(seconds))]:.0f}",
        f"{100 * statistics.mean(shares):.1f} %",
        f"{size:,} ({format_bytes(size)}, {size / tokens:.0f} a token)",
        (folder / "seconds").read_text(),
    )
    names = ("passages", "tokens", "ms a query, median", "95 of 100 below, ms")
    more = ("of the exhaustive top ten", "bytes of the index", "to make it, processor s")
    return bench.table((*names, *more), [row])


def _queries(corpus: Corpus) -> NDArray[np.int64]:
    """Return texts that are queries."""
    first = int(max(corpus.titles.max(), corpus.passages - 1)) + 1
    return np.arange(first, len(corpus.starts) - 1)[:_QUERIES]


def _write(folder: Path, source: _MadeUp, samples: int, head: Folded) -> None:
    counts = np.full(samples, _RUNS * _RUN, np.int64)
    line = b'{"name": "made up", "title": "", "text": "made up"}\n'
    ends = np.arange(samples + 1, dtype=np.int64) * len(line)
    write_index(folder, source, counts, np.arange(samples, dtype=np.int32), ends, head, "0" * 64)
    write_parts(folder / TEXTS, (line for _ in range(samples)))


def _shares(index: Index, source: _MadeUp, queries: list[Array]) -> list[float]:
    """Return which share of the ten best of all passages, without codes, a search finds."""
    tokens = np.concatenate(queries)
    starts = np.cumsum([0, *(len(query) for query in queries)])[:-1]
    scores = np.empty((len(queries), index.passages), np.float32)
    for first, last in source.runs():
        values, places = source.tokens(first, last)
        best = np.maximum.reduceat(tokens @ values.T, places[:-1], axis=1)
        scores[:, first:last] = np.add.reduceat(best, starts, axis=0)
    found = []
    for query, row in zip(queries, scores, strict=True):
        top = set(np.argsort(-row, kind="stable")[:_TOP].tolist())
        found.append(len(top & {hit.passage for hit in index.search(query, _TOP)}) / _TOP)
    return found


def _unit(head: Folded, hidden: Array) -> Array:
    values = project(head, hidden)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return values
