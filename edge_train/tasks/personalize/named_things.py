"""Whether photos are named after several things, where one word is to learn one thing."""

import re
from collections import Counter
from collections.abc import Sequence

_FIRST_WORD = re.compile(r"[^\W\d_]+")
# What cameras and programs call any picture.
_OF_NO_THING = frozenset(
    ("img", "dsc", "dscf", "dscn", "pxl", "mvimg", "photo", "image", "picture", "pic", "scan")
    + ("screenshot", "whatsapp", "signal", "snapshot", "frame", "crop", "copy", "a", "my", "the")
)
_LEAST = 2  # photos of a thing


def things_named(stems: Sequence[str]) -> tuple[str, ...]:
    """Return the things that photos are named after, if each has some and none is left over.

    Args:
      stems: names of the photos without folder and ending.

    >>> things_named(["cat-1", "cat-2", "dog1", "Dog 2"]), things_named(["IMG_1", "IMG_2", "dog"])
    (('cat', 'dog'), ())
    """
    found = [_FIRST_WORD.match(stem.casefold()) for stem in stems]
    words = Counter(match[0] for match in found if match)
    are_things = all(found) and not _OF_NO_THING & set(words)
    several = len(words) > 1 and min(words.values()) >= _LEAST
    return tuple(sorted(words)) if are_things and several else ()
