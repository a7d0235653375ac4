"""Texts as a file of token ids, written in pieces."""

import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.formats.atomic import write_parts
from edge_train.tasks.language_model.documents import Texts
from edge_train.tasks.language_model.marks import Marks

_CHARACTERS = 1 << 16  # of texts that are tokenized at once
_READ_IDS = 1 << 18

T = TypeVar("T")


def id_type(vocabulary: int) -> np.dtype[Any]:
    """Return the smallest type of two or four bytes that holds every id.

    >>> id_type(32000).str, id_type(128000).str
    ('<u2', '<u4')
    """
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def write_ids(
    texts: Texts, marks: Marks, tokenizer: Tokenizer, out: Path, kind: np.dtype[Any]
) -> "Written":
    """Write the ids of texts to `out`, whole or not at all; tokens never run over two pieces.

    Raises:
      InputError: a text is missing, empty, binary or not in a coding that is known.
      RunFolderError: `out` cannot be written.

    Memory: a piece of the text and 200 bytes of the tokenizer's for each of its letters, whatever
    the text's size.
    """
    written = Written()
    write_parts(out, _encoded(texts, marks, tokenizer, kind, written))
    return written


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
class Written:
    """What was written.

    Attributes:
      ids: how many there are.
      held: so many of them, the last ones, are of files to hold out.
      starts: where documents begin.
      sources: what the source of each is called.
    """

    ids: int = 0
    held: int = 0
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    sources: list[str] = field(default_factory=list)


def _encoded(
    texts: Texts, marks: Marks, tokenizer: Tokenizer, kind: np.dtype[Any], written: Written
) -> Iterator[bytes]:
    for files in (texts.train, texts.held):
        found_in = ((texts.source, *one) for one in texts.documents(files))
        for some in together(found_in, lambda one: len(one[1])):
            pieces = [piece for _, piece, _, _ in some]
            encodings = tokenizer.encode_batch(pieces, add_special_tokens=False)
            ids: list[int] = []
            for (source, _, begins, ends), found in zip(some, encodings, strict=True):
                if begins:
                    written.starts.append(written.ids + len(ids))
                    written.sources.append(source)
                ids += (*(marks.begin if begins else ()), *found.ids)
                ids += marks.end if ends else ()
            written.ids += len(ids)
            if files is texts.held:
                written.held += len(ids)
            yield np.array(ids, kind).tobytes()


def together(pieces: Iterator[T], letters: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield short texts many at a time, long ones alone."""
    some: list[T] = []
    room = _CHARACTERS
    for one in pieces:
        if some and room < letters(one):
            yield some
            some, room = [], _CHARACTERS
        some.append(one)
        room -= letters(one)
    if some:
        yield some
