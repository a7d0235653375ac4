"""One line of a journal: a record as JSON with its own checksum. Standard library only."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

LONGEST_LINE = 1 << 24  # bytes; a file without line ends is damaged, and not read into memory

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
