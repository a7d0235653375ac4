"""Texts as a file of token ids, written in pieces."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.formats.atomic import write_parts
from edge_train.tasks.language_model.documents import Texts
from edge_train.tasks.language_model.marks import Marks

_CHARACTERS = 1 << 20  # of texts that are tokenized at once
_READ_IDS = 1 << 18


def id_type(vocabulary: int) -> np.dtype[Any]:
    """Return the smallest type of two or four bytes that holds every id.

    >>> id_type(32000).str, id_type(128000).str
    ('<u2', '<u4')
    """
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def write_ids(
    texts: Texts, marks: Marks, tokenizer: Tokenizer, out: Path, kind: np.dtype[Any]
) -> tuple[int, int]:
    """Write the ids of texts to `out`, whole or not at all; tokens never run over two pieces.

    Returns:
      how many of the ids, the last ones, are of files to hold out, and how many documents begin.

    Raises:
      InputError: a text is missing, empty, binary or not in a coding that is known.
      RunFolderError: `out` cannot be written.

    Memory: a piece of the text and its ids, whatever the text's size.
    """
    counted = _Counted()
    write_parts(out, _encoded(texts, marks, tokenizer, kind, counted))
    return counted.held, counted.documents


def read_ids(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    """Return the ids in a file, mapped: what is not read takes no memory."""
    return np.memmap(path, kind, "r")


def checksum(ids: NDArray[Any]) -> str:
    """Return the CRC-32 of ids, to tell a damaged file."""
    crc = 0
    for start in range(0, len(ids), _READ_IDS):
        crc = zlib.crc32(ids[start : start + _READ_IDS].tobytes(), crc)
    return f"{crc:08x}"


@dataclass
class _Counted:
    """What was written: ids of files to hold out, and documents."""

    held: int = 0
    documents: int = 0


def _encoded(
    texts: Texts, marks: Marks, tokenizer: Tokenizer, kind: np.dtype[Any], counted: _Counted
) -> Iterator[bytes]:
    for files in (texts.train, texts.held):
        for some in _together(texts.documents(files)):
            pieces = [piece for piece, _, _ in some]
            encodings = tokenizer.encode_batch(pieces, add_special_tokens=False)
            ids: list[int] = []
            for (_, begins, ends), found in zip(some, encodings, strict=True):
                ids += (*(marks.begin if begins else ()), *found.ids)
                ids += marks.end if ends else ()
            counted.documents += sum(begins for _, begins, _ in some)
            if files is texts.held:
                counted.held += len(ids)
            yield np.array(ids, kind).tobytes()


def _together(
    pieces: Iterator[tuple[str, bool, bool]],
) -> Iterator[list[tuple[str, bool, bool]]]:
    """Yield short documents many at a time, long pieces alone."""
    some: list[tuple[str, bool, bool]] = []
    room = _CHARACTERS
    for one in pieces:
        if some and room < len(one[0]):
            yield some
            some, room = [], _CHARACTERS
        some.append(one)
        room -= len(one[0])
    if some:
        yield some
