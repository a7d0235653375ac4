"""Rows of a parquet file, a thousand at a time; needs pyarrow."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.paths import check_path

_ROWS = 1000  # in memory at once


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names of the columns.

    Raises:
      InputError: pyarrow is not installed, or it is no parquet file.
    """
    with _opened(path) as file:
        return tuple(map(str, file.schema_arrow.names))


def class_names_of(path: Path) -> dict[str, tuple[str, ...]]:
    """Return what the hub's data sets call the classes 0, 1, ... of a column, by its name.

    The library `datasets` writes it into the schema; what it cannot mean names nothing.

    Raises:
      InputError: as `columns_of`.
    """
    with _opened(path) as file:
        written = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(written)["info"]["features"]
        pairs = [(str(name), one["names"]) for name, one in features.items() if "names" in one]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return {
        name: tuple(names)
        for name, names in pairs
        if isinstance(names, list)
        and all(isinstance(one, str) and one.strip() for one in names)
        and len(set(names)) == len(names) > 1
    }


def rows_of(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield the number of every row, from 1, and its cells.

    Raises:
      InputError: as `columns_of`, or the file is damaged further on.
    """
    number = 0
    with _opened(path) as file:
        for batch in file.iter_batches(_ROWS, use_threads=False):
            columns = [column.to_pylist() for column in batch.columns]
            for row in zip(*columns, strict=True):
                number += 1
                yield number, [float(c) if isinstance(c, Decimal) else c for c in row]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            f"{path}: reading parquet needs pyarrow, which is not installed; `pip install "
            "edge-train[parquet]` brings it, or save the table as csv or jsonl."
        ) from error
    check_path(str(path), "data")
    try:
        with ParquetFile(path, memory_map=False) as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{path}: cannot be read (No such file or directory).") from error
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        # of names that are no text, or dates that no calendar has, it raises Python's own errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: damaged, or not a parquet file ({reason}).") from error
