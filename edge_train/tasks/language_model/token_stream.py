"""A text file as a file of token ids: read, checked and written in pieces."""

import codecs
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.errors import InputError, ModelError
from edge_train.formats.atomic import write_parts

_PIECE_BYTES = 1 << 20  # of text in memory at once; a piece ends with a line
_READ_IDS = 1 << 18


def open_tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    """Return the tokenizer in `tokenizer.json` of a model folder.

    Args:
      vocabulary: rows of the model's embedding table.

    Raises:
      ModelError: it is missing, damaged, or has more tokens than the model.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder}: no tokenizer.json; copy or download the model again with its tokenizer."
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: cannot be read ({error}); download the model again.") from error
    if (tokens := tokenizer.get_vocab_size()) > vocabulary:
        raise ModelError(
            f"{folder}: the tokenizer has {tokens} tokens, the model's table {vocabulary} rows; "
            "they do not belong together."
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def id_type(vocabulary: int) -> np.dtype[Any]:
    """Return the smallest type of two or four bytes that holds every id.

    >>> id_type(32000).str, id_type(128000).str
    ('<u2', '<u4')
    """
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def write_ids(text: Path, tokenizer: Tokenizer, out: Path, kind: np.dtype[Any]) -> None:
    """Write the ids of a text to `out`, whole or not at all; tokens never run over two pieces.

    Raises:
      InputError: the text is missing, empty, binary or not UTF-8.
      RunFolderError: `out` cannot be written.

    Memory: a piece of the text and its ids, whatever the text's size.
    """
    write_parts(out, _encoded(text, tokenizer, kind))


def read_ids(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    """Return the ids in a file, mapped: what is not read takes no memory."""
    return np.memmap(path, kind, "r")


def checksum(ids: NDArray[Any]) -> str:
    """Return the CRC-32 of ids, to tell a damaged file."""
    crc = 0
    for start in range(0, len(ids), _READ_IDS):
        crc = zlib.crc32(ids[start : start + _READ_IDS].tobytes(), crc)
    return f"{crc:08x}"


def check_text(path: Path) -> None:
    """Refuse what is no text, by its beginning.

    Raises:
      InputError: it is missing, empty, binary or not UTF-8.
    """
    next(_pieces(path))


def _encoded(path: Path, tokenizer: Tokenizer, kind: np.dtype[Any]) -> Iterator[bytes]:
    for piece in _pieces(path):
        ids = tokenizer.encode(piece, add_special_tokens=False).ids
        yield np.array(ids, kind).tobytes()


def _pieces(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    offset = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES) + file.readline(_PIECE_BYTES):
                if b"\0" in piece:
                    raise InputError(f"{path}: holds zero bytes, so it is no text; name a text.")
                yield decoder.decode(piece)
                offset += len(piece)
            decoder.decode(b"", final=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {offset + error.start} is not UTF-8; save the file as UTF-8 text."
        ) from error
    if offset == 0:
        raise InputError(f"{path}: the file is empty; name a text.")
