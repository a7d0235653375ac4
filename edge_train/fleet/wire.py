"""Messages of a fleet as bytes: a few numbers each, and nothing in them is believed.

To a device: version, kind, fleet, the round that is open, how many rounds follow; of each its
number, how many values, the values in float64 (so that one device alone takes the very steps of a
run by itself); or the bytes of weights. From a device: version, kind, fleet, round; the values it
measured, weights, its state, or a text.
"""

import struct
from dataclasses import dataclass, field
from math import isfinite

VERSION = 1
HELLO, ASK, END, REFUSED, JUMP, GIVE = range(1, 7)  # to a device
IDENTITY, MEASURED, NEED, STOPPED, DONE, WEIGHTS, STATE = range(11, 18)  # from a device
TAG_BYTES = 4
MOST_ENTRIES = 20_000  # in one message; a device that misses more asks again
MOST_BYTES = 1 << 25  # of all entries of a message
_MOST_VALUES = 253
_WEIGHTS = 254  # in place of a count: bytes follow
_NOT_FINITE = 255  # in place of a count: nobody measured anything finite, the step is skipped
_MOST_TEXT = 20_000
_TO = struct.Struct("<BB4sIH")
_FROM = struct.Struct("<BB4sI")
_ENTRY = struct.Struct("<IB")
_LENGTH = struct.Struct("<I")

Values = tuple[float, ...]
Agreed = Values | bytes | None  # numbers, or weights (`fleet.int8`); None: nothing finite


@dataclass(frozen=True)
class Asked:
    """A message to a device.

    Attributes:
      kind: `HELLO` (say who you are), `ASK`, `END` (training is over), `REFUSED`, `JUMP` (go on
        from `state`, with which `open` begins) or `GIVE` (send the state with which `open` begins).
      tag: of the fleet; zeros in a first `HELLO`, before there is one.
      open: the round whose numbers are wanted.
      entries: what was agreed in rounds before it, by number; None: nothing finite was measured.
      text: why it is refused.
      state: of a `JUMP`.
    """

    kind: int
    tag: bytes
    open: int
    entries: dict[int, Agreed] = field(default_factory=dict)
    text: str = ""
    state: bytes = b""

    def encode(self) -> bytes:
        """Return the message."""
        parts = [_TO.pack(VERSION, self.kind, self.tag, self.open, len(self.entries))]
        for number, values in self.entries.items():
            if isinstance(values, bytes):
                parts += [_ENTRY.pack(number, _WEIGHTS), _LENGTH.pack(len(values)), values]
                continue
            parts.append(_ENTRY.pack(number, _NOT_FINITE if values is None else len(values)))
            parts.append(_packed(values or ()))
        return b"".join(parts) + (self.state or self.text.encode())


@dataclass(frozen=True)
class Answer:
    """A message from a device.

    Attributes:
      kind: `IDENTITY` (`text` is JSON), `MEASURED`, `NEED` (it knows nothing from this round on),
        `STOPPED` (why: `text`), `DONE`, `WEIGHTS` (`content`) or `STATE` (`content`).
      tag: of the fleet; zeros of a device that is in none yet.
      number: of the round.
      values: that were measured; not a number where a loss was not finite.
      content: weights (`fleet.int8`), or a file of all that a run holds.
    """

    kind: int
    tag: bytes
    number: int
    values: Values = ()
    text: str = ""
    content: bytes = b""

    def encode(self) -> bytes:
        """Return the message."""
        head = _FROM.pack(VERSION, self.kind, self.tag, self.number)
        if self.kind in (WEIGHTS, STATE):
            return head + self.content
        return head + (_packed(self.values) if self.kind == MEASURED else self.text.encode())


def read_asked(content: bytes) -> Asked:
    """Return a message to a device.

    Raises:
      ValueError: it is none, in a few words.
    """
    if len(content) < _TO.size:
        raise ValueError(f"a message of {len(content)} bytes")
    version, kind, tag, open_round, count = _TO.unpack_from(content)
    _check(version, kind, HELLO, GIVE)
    at, entries = _TO.size, dict[int, Agreed]()
    for _ in range(count):
        if len(content) < at + _ENTRY.size:
            raise ValueError("a message that ends early")
        number, length = _ENTRY.unpack_from(content, at)
        at += _ENTRY.size
        if length == _NOT_FINITE:
            entries[number] = None
            continue
        if length == _WEIGHTS:
            if len(content) < at + _LENGTH.size:
                raise ValueError("a message that ends early")
            (size,) = _LENGTH.unpack_from(content, at)
            at += _LENGTH.size
            if len(content) < at + size:
                raise ValueError("a message that ends early")
            entries[number] = content[at : at + size]
            at += size
            continue
        values = _unpacked(content[at : at + 8 * length], length)
        if not all(map(isfinite, values)):
            raise ValueError("agreed numbers that are not finite")
        entries[number] = values
        at += 8 * length
    rest = content[at:]
    if kind == JUMP:
        return Asked(kind, tag, open_round, entries, state=rest)
    return Asked(kind, tag, open_round, entries, _text(rest))


def read_answer(content: bytes) -> Answer:
    """Return a message from a device.

    Raises:
      ValueError: it is none, in a few words.
    """
    if len(content) < _FROM.size:
        raise ValueError(f"a message of {len(content)} bytes")
    version, kind, tag, number = _FROM.unpack_from(content)
    _check(version, kind, IDENTITY, STATE)
    rest = content[_FROM.size :]
    if kind in (WEIGHTS, STATE):
        return Answer(kind, tag, number, content=rest)
    if kind != MEASURED:
        return Answer(kind, tag, number, text=_text(rest))
    if len(rest) % 8 or len(rest) > 8 * _MOST_VALUES:
        raise ValueError(f"{len(rest)} bytes of numbers")
    return Answer(kind, tag, number, _unpacked(rest, len(rest) // 8))


def _check(version: int, kind: int, low: int, high: int) -> None:
    if version != VERSION:
        raise ValueError(f"a message of version {version}, this edge-train speaks {VERSION}")
    if not low <= kind <= high:
        raise ValueError(f"a message of kind {kind}")


def _packed(values: Values) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _unpacked(content: bytes, count: int) -> Values:
    if len(content) != 8 * count:
        raise ValueError("a message that ends early")
    return struct.unpack(f"<{count}d", content)


def _text(content: bytes) -> str:
    if len(content) > _MOST_TEXT:
        raise ValueError(f"a text of {len(content)} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError("a text that is no UTF-8") from error
