"""The append-only record of a run: one JSON line a step, each with its own checksum."""

import os
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import asdict, fields
from io import BufferedReader
from pathlib import Path
from typing import Any, overload

from edge_train.errors import RunFolderError
from edge_train.protocols import StepRecord
from edge_train.records.lines import LONGEST_LINE, Record
from edge_train.records.lines import decode as decode
from edge_train.records.lines import encode as encode
from edge_train.records.order import FORMAT_VERSION, Order

_SYNC_SECONDS = 2.0  # the contract promises 5; a power cut loses at most this much
_STEP_FIELDS = tuple(field.name for field in fields(StepRecord))


def step_line(record: StepRecord) -> dict[str, Any]:
    """Return a step as a journal record."""
    line = {"kind": "step", **asdict(record)}
    if not record.block_losses:
        del line["block_losses"]
    for name in ("gradient_norm", "selection_seconds"):
        if line[name] is None:
            del line[name]
    return line


def step_record(line: Record) -> StepRecord:
    """Return the step that a journal record of kind `step` holds; older ones lack later fields."""
    values = {name: line[name] for name in _STEP_FIELDS if name in line}
    for name in ("scalars", "block_losses"):
        values[name] = tuple(values.get(name, ()))
    return StepRecord(**values)


class Records(Sequence[Record]):
    """The intact records from the start of a journal, read from the file whenever they are asked.

    One record is held at a time, whatever the length of the run; eight bytes each say where they
    begin. What is appended later is not seen.

    Attributes:
      intact: bytes that they fill.

    Raises:
      RunFolderError: the file cannot be read, was written by a later version, or (from readers)
        has changed since.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = array("Q")
        self.intact: int = 0
        version, order = 0, Order()
        with self._opened() as file:
            while line := file.readline(LONGEST_LINE):
                try:
                    record = decode(line)
                    order.check(record)
                except ValueError:
                    break
                if not self._starts:
                    version = record.get("version", 0)
                self._starts.append(self.intact)
                self.intact += len(line)
        if version > FORMAT_VERSION:
            raise RunFolderError(
                f"{path}: journal version {version}, this edge-train reads up to {FORMAT_VERSION}; "
                "install a newer one."
            )

    def before_step(self, step: int) -> "Records":
        """Return the records before that of a step, where there is one."""
        found = copy(self)
        for number, record in enumerate(self):
            if record["kind"] == "step" and record["step"] == step:
                found._starts = self._starts[:number]
                found.intact = self._starts[number]
                break
        return found

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Record]:
        with self._opened() as file:
            for _ in range(len(self)):
                yield self._next(file)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        with self._opened() as file:
            file.seek(self._starts[index])
            return self._next(file)

    def __reversed__(self) -> Iterator[Record]:
        with self._opened() as file:
            for start in reversed(self._starts):
                file.seek(start)
                yield self._next(file)

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence has the same records."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # compared by what the file holds

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        try:
            with self._path.open("rb") as file:
                yield file
        except OSError as error:
            raise RunFolderError(f"{self._path}: cannot be read ({error.strerror}).") from error

    def _next(self, file: BufferedReader) -> Record:
        try:
            return decode(file.readline(LONGEST_LINE))
        except ValueError as error:
            raise RunFolderError(
                f"{self._path}: it has changed while it was read ({error}); try again."
            ) from error


class Steps:
    """The steps among records, made anew at every pass."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = records
        self._count = sum(1 for record in records if record["kind"] == "step")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[StepRecord]:
        return (step_record(record) for record in self._records if record["kind"] == "step")


def read(path: Path) -> tuple[Records, int]:
    """Return the intact records from the start of a journal, and how many bytes they fill.

    Reading stops at the first line that is torn or damaged, or cannot follow those before it (see
    `Order`): a cut anywhere leaves a journal that opens. Compare the byte count with the file size
    to learn whether anything was left out.

    Raises:
      RunFolderError: the file cannot be read or was written by a later version.
    """
    records = Records(path)
    return records, records.intact


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
