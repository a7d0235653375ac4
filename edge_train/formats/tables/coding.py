"""How a text file is coded: UTF-8, UTF-16, UTF-32 or an older coding, found by reading it once.

UTF-8 with and without its mark, UTF-16 and UTF-32 with one, and UTF-16 without are certain. What is
none of them goes by its letters (guessed.py); where these leave a doubt and it looks like the
Western European text of older Windows programs, it is read as Windows-1252. Every such guess is
said. Anything else is refused: a wrong guess trains on wrong letters.
"""

import codecs
import gzip
import io
import re
import string
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from edge_train.errors import InputError
from edge_train.formats.tables.guessed import NAMES, SAMPLE_BYTES, coding_by_letters
from edge_train.paths import check_path

_PIECE_BYTES = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LETTERS = string.ascii_letters.encode()
_BAD = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as "surrogateescape" keeps them
_NO_CHARACTER = re.compile("[\udc81\udc8d\udc8f\udc90\udc9d]")  # of Windows-1252
# Of its letters, text of Western Europe has seldom more than an eighth outside of ASCII; Cyrillic,
# Greek or Chinese in a coding of their own have nearly all.
_MOST_FOREIGN = 0.3
# Signs of Windows-1252 between small letters, as in "na\xb3ogowy": letters of another coding.
_SIGN_IN_WORD = re.compile(
    "[a-z][\udca1-\udca9\udcab-\udcac\udcae-\udcb3\udcb6\udcb8-\udcb9\udcbb-\udcbf](?=[a-z])"
)
_MOST_SIGNS = 0.05  # of the bytes beyond ASCII


@dataclass(frozen=True)
class Coding:
    """The name of a coding as Python knows it, and a line for the user where it was a guess."""

    name: str
    said: str = ""


def kind_of(path: Path) -> str:
    """Return what a file holds by its name, in small letters, whatever packs it.

    >>> kind_of(Path("a/Train.TSV.gz")), kind_of(Path("b.csv")), kind_of(Path("c"))
    ('.tsv', '.csv', '')
    """
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, unpacked where its name ends in `.gz`.

    Raises:
      InputError: it is missing, no file, cannot be read, or its packing is damaged.
    """
    check_path(str(path), "data")
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as packed:
                yield cast(BinaryIO, packed)
        else:
            with path.open("rb") as file:
                yield file
    except gzip.BadGzipFile as error:
        raise InputError(f"{path}: it is no gzip file, or a damaged one ({error}).") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: its gzip packing is damaged ({error}).") from error


@contextmanager
def opened_text(path: Path, coding: Coding) -> Iterator[TextIO]:
    """Open a file as text; line ends stay as they are.

    Raises:
      InputError: as `opened`, or its end is no text in this coding.
    """
    try:
        with opened(path) as file, io.TextIOWrapper(file, coding.name, newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: it begins as {NAMES.get(coding.name, coding.name)} text and does not go on "
            f"so ({error.reason}); save it as UTF-8."
        ) from error


def guess_of(start: bytes) -> str:
    """Return the coding that a text begins in, UTF-8 where nothing else shows."""
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), "")
    return marked or _wide(start[:4096]) or "utf-8-sig"


def coding_of(path: Path) -> Coding:
    """Return how a file is coded; it is read once, a piece at a time.

    Raises:
      InputError: it cannot be read, holds no text, or text in a coding that is not known.
    """
    with opened(path) as file:
        start = file.read(_PIECE_BYTES)
        name = guess_of(start)
        return _narrow(path, file, start) if name == "utf-8-sig" else Coding(name)


def _wide(start: bytes) -> str:
    """Return which UTF-16 without a mark begins like this; empty: none, as far as it shows."""
    pairs = len(start) // 2
    if pairs < 2:
        return ""
    first, second = start[0 : 2 * pairs : 2].count(0), start[1 : 2 * pairs : 2].count(0)
    if second > 0.4 * pairs and first < 0.05 * pairs:
        return "utf-16-le"
    return "utf-16-be" if first > 0.4 * pairs and second < 0.05 * pairs else ""


def _narrow(path: Path, file: BinaryIO, piece: bytes) -> Coding:
    """Return UTF-8 or an older coding, by the bytes above ASCII in all of a file."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    lines, first_bad = 1, 0  # line numbers from 1; 0: no bad byte yet
    bad = good = letters = signs = 0
    unknown = False
    sample = bytearray()
    begun: bytes | None = b""  # of a line that the next piece goes on with
    while True:
        if b"\0" in piece:
            raise InputError(f"{path}: holds zero bytes, so it is no text; name a text.")
        text = decoder.decode(piece, not piece)
        if not text.isascii():
            rest = _BAD.sub("", text)
            here = len(text) - len(rest)
            if here and not first_bad:
                first_bad = lines + text[: _BAD.search(text).start()].count("\n")  # type: ignore[union-attr]
            bad += here
            good += len(rest) - len(rest.encode("ascii", "ignore"))
            unknown = unknown or _NO_CHARACTER.search(text) is not None
            if here:
                signs += len(_SIGN_IN_WORD.findall(text))
        lines += text.count("\n")
        if begun is not None:
            begun = _sampled(sample, begun + piece, not piece)
        letters += len(piece) - len(piece.translate(None, _LETTERS))
        if not piece:
            break
        piece = file.read(_PIECE_BYTES)
    if not bad:
        return Coding("utf-8-sig")
    if good > bad:
        raise InputError(
            f"{path}: line {first_bad} is not UTF-8, though the rest is; mend or remove that line."
        )
    name = coding_by_letters(bytes(sample))
    unknown = unknown or signs > _MOST_SIGNS * bad or bad > _MOST_FOREIGN * (letters + bad)
    if not name and unknown:
        raise InputError(
            f"{path}: line {first_bad} is not UTF-8, it does not look like Windows-1252 either, "
            "and its letters tell no other coding for sure; convert the file from the coding that "
            f"you know it is in: `iconv -f CODING -t UTF-8 {path.name} > utf8-{path.name}`."
        )
    name = name or "cp1252"
    return Coding(
        name,
        f"{path.name} is not UTF-8: it is read as {NAMES[name]} (line {first_bad}); if its letters "
        "come out wrong, save it as UTF-8",
    )


def _sampled(sample: bytearray, text: bytes, ends: bool) -> bytes | None:
    """Add lines that have bytes beyond ASCII to a sample, as many as it has room for.

    Args:
      text: begins with a line.
      ends: it is the last, whether its last line has an end or not.

    Returns:
      the beginning of a line whose end is still to come; None: there is no more room.
    """
    cut = len(text) if ends or len(text) > 2 * _PIECE_BYTES else text.rfind(b"\n") + 1
    for line in () if text.isascii() else text[:cut].splitlines(keepends=True):
        if line.isascii():
            continue
        room = SAMPLE_BYTES - len(sample)
        if len(line) > room:
            if not sample:
                # A space or a control byte is no part of a letter in any coding that is asked for.
                sample += re.split(rb"[\x00- ][^\x00- ]*$", line[:room], maxsplit=1)[0]
            return None
        sample += line
    return text[cut:]
