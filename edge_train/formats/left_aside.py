"""What of a folder was left aside, and why: each name once, a line for each reason."""

from collections import defaultdict
from collections.abc import Sequence

_NAMED = 3  # names in a line; the rest is counted

Reasons = dict[str, str]  # name inside the folder that a user named -> why it was left aside


def some_of(names: Sequence[str]) -> str:
    """Return a few names, and how many more there are.

    >>> some_of(["a", "b"]), some_of(list("abcde"))
    ('a, b', 'a, b, c and 2 more')
    """
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def lines_of(skipped: Reasons) -> list[str]:
    """Return what was left aside, a line for each reason.

    >>> lines_of({"a.mov": "not a picture", "b.mov": "not a picture"})
    ['left aside: a.mov, b.mov (not a picture)']
    """
    by_reason = defaultdict(list)
    for name, reason in skipped.items():
        by_reason[reason].append(name)
    return [f"left aside: {some_of(names)} ({reason})" for reason, names in by_reason.items()]
