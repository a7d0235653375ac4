"""Whether photos are named after several things, where one word is to learn one thing."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edge_train.formats.left_aside import some_of
from edge_train.formats.picture_folders import folders_in, looks_like_pictures, repeats_of

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


def said_of_things(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return a line if photos, or the folders that they lie in, are named after several things.

    Args:
      names: of photos without captions.
      classes: that folders are named after.
    """
    folders = classes if len(classes) > 1 else ()
    found = {"photos": things_named([Path(name).stem for name in names]), "folders": folders}
    return [
        f"{what} are named after {some_of(things)}: one word learns one thing; if they show "
        "several, train a word for each, on a folder of its own"
        for what, things in found.items()
        if things
    ]


def class_word_of(folder: Path) -> str | None:
    """Return the class that kohya's folders name, None where they name none or several.

    A folder that cannot be read is refused when its photos are.
    """
    classes = classes_of(folder)
    return classes[0] if len(classes) == 1 else None


def classes_of(folder: Path) -> list[str]:
    """Return the classes that kohya's folders of photos name, sorted; none where photos lie there.

    Their names are `repeats_token class`: what follows the first word is the class, or that word
    where it stands alone.
    """
    return sorted({words.partition(" ")[2].strip() or words for words in _words_of(folder)})


def token_of(folder: Path, class_word: str) -> str | None:
    """Return the word that all of kohya's folders have before a class, None without one.

    Prompts of their trainer say it before the class, for what is learned.
    """
    found = {
        first
        for first, _, rest in (words.partition(" ") for words in _words_of(folder))
        if rest.strip().casefold() == class_word.casefold()
    }
    return found.pop() if len(found) == 1 else None


def _words_of(folder: Path) -> list[str]:
    """Return what kohya's folders of photos are called behind their numbers."""
    try:
        if looks_like_pictures(folder):
            return []
        inside = [inner for inner in folders_in(folder) if looks_like_pictures(inner)]
    except OSError:
        return []
    return [found[1] for inner in inside if (found := repeats_of(inner))]
