"""Bytes and seconds as people type and read them."""

import re

from edge_train.errors import InputError

# The least that the embedded model was trained in (`edge-train bench cap`): advice for whoever
# names no size, or one under which not even the libraries load.
LEAST_RUN_BYTES = 140_000_000
LEAST_NETWORK_BYTES = 90_000_000  # the same for a small network, which needs no engine but NumPy
LEAST = "140MB, for the embedded model as an artifact"
# A cap that a refusal names has to do, and a plan can be low: an engine maps more than it touches,
# which the wall counts. 459 MB were planned where 506 MB were too few and 560 MB enough.
_DOUBT_SHARE, _DOUBT_MOST_BYTES = 0.2, 100_000_000
_SHOWN = 60  # characters
_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_MOST_SECONDS = 366 * 24 * 3600
_MOST_BYTES = 2**63 - 1  # that an operating system can be told
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


def advised_bytes(planned_bytes: int) -> int:
    """Return the cap to advise where a plan that no run was held to says what is needed.

    >>> advised_bytes(100_000_000), advised_bytes(8_000_000_000)
    (120000000, 8100000000)
    """
    return planned_bytes + int(min(_DOUBT_SHARE * planned_bytes, _DOUBT_MOST_BYTES))


def parse_bytes(text: str) -> int:
    """Return the number of bytes that `text` names.

    `8GB` and `8G` are 8 * 10^9, the smaller reading, which can never break a cap;
    `8GiB` is 8 * 2^30.

    Raises:
      InputError: `text` is not a positive size.

    >>> parse_bytes("8GB"), parse_bytes("1.5GiB"), parse_bytes("900 mb")
    (8000000000, 1610612736, 900000000)
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        raise InputError(
            f"{shown(text)} is not a size; write for example 8GB, 900MB or 1.5GiB. The least that "
            f"works is {LEAST}."
        )
    prefix = match[2].upper()
    size = float(match[1]) * (_BINARY if match[3] else _DECIMAL)[prefix]
    if size >= _MOST_BYTES:
        raise InputError(f"{shown(text)} is more than any machine has; write for example 8GB.")
    count = int(size)
    if count <= 0:
        raise InputError(
            f"{text!r} is no memory at all; write for example 8GB. The least that works is {LEAST}."
        )
    return count


def parse_seconds(text: str) -> float:
    """Return the seconds that `text` names.

    Raises:
      InputError: `text` is not a time, is none at all, or is more than a year.

    >>> parse_seconds("90s"), parse_seconds("30m"), parse_seconds("1.5 h")
    (90.0, 1800.0, 5400.0)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InputError(f"{shown(text)} is not a time; write for example 90s, 30m or 2h.")
    seconds = float(match[1]) * _SECONDS[match[2].lower()]
    if not 0 < seconds <= _MOST_SECONDS:
        why = "more than a year" if seconds else "no time at all"
        raise InputError(f"{shown(text)} is {why}; write for example 90s, 30m or 2h.")
    return seconds


def shown(value: object) -> str:
    """Return a value for a message, cut where it would fill the screen.

    >>> shown("8 gigs"), len(shown(10**4000))
    ("'8 gigs'", 60)
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def format_bytes(count: int) -> str:
    """Return `count` in decimal units with three significant digits.

    >>> format_bytes(8_410_000_000), format_bytes(912), format_bytes(45_600_000)
    ('8.41 GB', '912 B', '45.6 MB')
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"


def steps_in_words(count: int | None) -> str:
    """Return a number of steps for people.

    >>> steps_in_words(1), steps_in_words(300)
    ('1 step', '300 steps')
    """
    return f"{count} step" if count == 1 else f"{count} steps"


def format_seconds(seconds: float) -> str:
    """Return a duration the way a progress bar shows it.

    >>> format_seconds(7.4), format_seconds(754), format_seconds(7384)
    ('7s', '12m34s', '2h03m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
