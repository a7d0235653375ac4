"""JSON as somebody else wrote it: whatever is wrong with it is a ValueError."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

Pairs = Sequence[tuple[str, Any]]

# Half of a letter: Python reads it, and nothing can write or tokenize it.
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(text: str | bytes, pairs: Callable[[Pairs], Any] | None = None) -> Any:
    """Return the value of a JSON text.

    Args:
      pairs: makes the value of an object; None: a dict, in which the last of equal names counts.

    Raises:
      ValueError: it is none, is nested too deeply, or has half of a letter in a string.
    """
    if isinstance(text, bytes):  # json itself would let half of a letter through
        text = text.decode(json.detect_encoding(text))
    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _ESCAPED.search(text) and _has_half(value):
        raise ValueError("half of a letter, \\ud800 to \\udfff, in a string")
    return value


def unambiguous(pairs: Pairs) -> dict[str, Any] | None:
    """Return the dict of an object, None where a name has two different values.

    >>> unambiguous([("a", 1), ("a", 1)]), unambiguous([("a", 1), ("a", 2)])
    ({'a': 1}, None)
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            return None
        found[name] = value
    return found


def _has_half(value: Any) -> bool:
    if isinstance(value, str):
        return _HALF.search(value) is not None
    if isinstance(value, dict):
        return any(_has_half(one) for pair in value.items() for one in pair)
    return isinstance(value, list) and any(map(_has_half, value))
