"""The append-only record of a run: one JSON line a step, each with its own checksum."""

import json
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from edge_train.errors import RunFolderError
from edge_train.protocols import StepRecord
from edge_train.records.order import FORMAT_VERSION, Order

_SYNC_SECONDS = 2.0  # the contract promises 5; a power cut loses at most this much
_STEP_FIELDS = tuple(field.name for field in fields(StepRecord))

Record = Mapping[str, Any]


def encode(record: Record) -> bytes:
    """Return one line of the journal: the record as compact JSON, its CRC-32 as the last key.

    >>> encode({"kind": "event", "step": 3})
    b'{"kind":"event","step":3,"crc":"f8dd242c"}\\n'
    """
    body = json.dumps(record, separators=(",", ":"), allow_nan=False)
    return f'{body[:-1]},"crc":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def decode(line: bytes) -> dict[str, Any]:
    """Return the record of one line.

    Raises:
      ValueError: the line is torn, edited or not of this format.
    """
    body = line[: -len(',"crc":"00000000"}\n')] + b"}"
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(record, dict) or record.pop("crc", None) != f"{zlib.crc32(body):08x}":
        raise ValueError("checksum does not match")
    return record


def step_line(record: StepRecord) -> dict[str, Any]:
    """Return a step as a journal record."""
    line = {"kind": "step", **asdict(record)}
    if not record.block_losses:
        del line["block_losses"]
    return line


def step_record(line: Record) -> StepRecord:
    """Return the step that a journal record of kind `step` holds; older ones lack later fields."""
    values = {name: line[name] for name in _STEP_FIELDS if name in line}
    for name in ("scalars", "block_losses"):
        values[name] = tuple(values.get(name, ()))
    return StepRecord(**values)


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the intact records from the start of a journal, and how many bytes they fill.

    Reading stops at the first line that is torn or damaged, or cannot follow those before it (see
    `Order`): a cut anywhere leaves a journal that opens. Compare the byte count with the file size
    to learn whether anything was left out.

    Raises:
      RunFolderError: the file cannot be read or was written by a later version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror}).") from error
    records: list[dict[str, Any]] = []
    intact, order = 0, Order()
    for line in content.splitlines(keepends=True):
        try:
            record = decode(line)
            order.check(record)
        except ValueError:
            break
        records.append(record)
        intact += len(line)
    if records and records[0].get("version", 0) > FORMAT_VERSION:
        found = records[0]["version"]
        raise RunFolderError(
            f"{path}: journal version {found}, this edge-train reads up to {FORMAT_VERSION}; "
            "install a newer one."
        )
    return records, intact


class Journal:
    """Appends records to a file and makes them durable every few seconds.

    Args:
      path: the file; made if missing.
      keep_bytes: everything after this offset is cut off first (a torn tail); None keeps all.

    Raises:
      RunFolderError: the file cannot be opened, or (from `append`) the disk is full.
    """

    def __init__(self, path: Path, keep_bytes: int | None = None) -> None:
        self._path = path
        try:
            self._file = open(path, "ab", buffering=0)
            if keep_bytes is not None:
                self._file.truncate(keep_bytes)
                self._file.seek(0, os.SEEK_END)  # it stood where the torn end was
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written ({error.strerror}).") from error
        self._synced = time.monotonic()

    def append(self, record: Record, durable: bool = False) -> None:
        """Append one record; with `durable`, return only when it is on the disk."""
        line = encode(record)
        start = self._file.tell()
        try:
            if self._file.write(line) != len(line):
                raise OSError(28, "No space left on device")
            if durable or time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            with suppress(OSError):  # readers drop a torn line, should it stay
                self._file.truncate(start)
            raise RunFolderError(f"{self._path}: cannot be written ({error.strerror}).") from error

    def close(self) -> None:
        """Make everything durable, as far as the disk allows, and close the file."""
        with self._file, suppress(OSError):
            os.fsync(self._file.fileno())
