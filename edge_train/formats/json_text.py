"""JSON as somebody else wrote it: whatever is wrong with it is a ValueError."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Pairs = Sequence[tuple[str, Any]]

# Half of a letter: Python reads it, and nothing can write or tokenize it.
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_REPLACEMENT = "\ufffd"  # as Unicode replaces what is no letter


@dataclass(frozen=True)
class Twice:
    """Stands for an object in which a name has two values: nobody knows which is meant."""

    name: str


def read_text(text: str | bytes, pairs: Callable[[Pairs], Any] | None = None) -> Any:
    """Return the value of a JSON text.

    Args:
      pairs: makes the value of an object; None: a dict, in which the last of equal names counts.

    Raises:
      ValueError: it is none, is nested too deeply, has a number of thousands of digits, or has half
        of a letter in a string.
    """
    if isinstance(text, bytes):  # json itself would let half of a letter through
        text = text.decode(json.detect_encoding(text))
    value = read_halves(text, pairs)
    if may_have_halves(text) and _has_half(value):
        raise ValueError("half of a letter, \\ud800 to \\udfff, in a string")
    return value


def read_halves(text: str, pairs: Callable[[Pairs], Any] | None = None) -> Any:
    """Return the value of a JSON text whose strings may have halves of letters; see `whole`.

    Args:
      pairs: as of `read_text`.

    Raises:
      ValueError: as `read_text`, but for halves of letters. It is a json.JSONDecodeError only where
        the text is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:  # Python's own words name a function that users have not
        raise ValueError("a number of thousands of digits") from error


def may_have_halves(text: str) -> bool:
    r"""Return whether a JSON text escapes what may be half of a letter.

    >>> may_have_halves(r'"\ud83d"'), may_have_halves(r'"\u00e4"')
    (True, False)
    """
    return "\\u" in text and _ESCAPED.search(text) is not None


def whole(value: Any) -> Any:
    r"""Return a value with U+FFFD for each half of a letter; it itself where it has none.

    >>> whole({"a": ["b\ud83d"]})
    {'a': ['b\ufffd']}
    """
    return _whole(value) if _has_half(value) else value


def unambiguous(pairs: Pairs) -> dict[str, Any] | Twice:
    """Return the dict of an object, `Twice` where a name has two different values.

    >>> unambiguous([("a", 1), ("a", 1)]), unambiguous([("a", 1), ("a", 2)])
    ({'a': 1}, Twice(name='a'))
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            return Twice(name)
        found[name] = value
    return found


def _has_half(value: Any) -> bool:
    if isinstance(value, str):
        return _HALF.search(value) is not None
    if isinstance(value, dict):
        return any(_has_half(one) for pair in value.items() for one in pair)
    return isinstance(value, list) and any(map(_has_half, value))


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub(_REPLACEMENT, value)
    if isinstance(value, dict):
        return {_whole(name): _whole(one) for name, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list) else value
