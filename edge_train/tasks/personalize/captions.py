"""Captions: where in a sentence the learned token stands; `{}` marks the place everywhere."""

import re
from collections.abc import Sequence
from typing import Literal

from edge_train.errors import InputError
from edge_train.tasks.personalize.photos import Photo

PLACE = "{}"
MAX_TOKEN_BYTES = 64  # far below any file system's limit, and still readable in a prompt

# Neutral on purpose: what a template says of light or place, the token need not learn.
OBJECT_TEMPLATES = (
    "{}",
    "a photo of {}",
    "one photo of {}",
    "a photo showing {}",
    "a close-up photo of {}",
    "a photo of {} from nearby",
    "a photo of {} from a distance",
    "a sharp photo of {}",
    "a simple photo of {}",
    "an everyday photo of {}",
    "a photo of {} in the middle",
    "a photo with {} in it",
    "a color photo of {}",
    "a snapshot of {}",
    "a picture of {}",
    "an image of {}",
)
STYLE_TEMPLATES = (
    "in the style of {}",
    "a picture in the style of {}",
    "an image in the style of {}",
    "a painting in the style of {}",
    "a drawing in the style of {}",
    "a scene in the style of {}",
    "a detail in the style of {}",
    "a simple picture in the style of {}",
    "a large picture in the style of {}",
    "a work of art in the style of {}",
)

# What a mirror image shows wrongly: sides, and whatever is read.
_SIDED = re.compile(
    r"\b(left|right)(most|hand|-hand|ward|wards)?\b|\b(anti|counter)?-?clockwise\b"
    r"|\b(text|words?|letter(s|ing)?|writing|written|logos?|inscriptions?|captions?|subtitles?)\b",
    re.IGNORECASE,
)

# Spellings of the place that other trainers' data sets use.
_FOREIGN_PLACES = ("[trigger]", "<embedding>")


def captions_for(
    photos: Sequence[Photo], token: str, class_word: str, learn: Literal["object", "style"]
) -> tuple[tuple[str, ...], ...]:
    """Return for every photo the captions to draw from, each with at least one `{}`.

    A photo's own caption stands alone; a photo without one draws from the templates.

    Raises:
      InputError: a caption has no place for the token.
    """
    templates = {"object": OBJECT_TEMPLATES, "style": STYLE_TEMPLATES}[learn]
    return tuple(
        templates
        if photo.caption is None
        else (place(photo.caption, token, class_word, photo.name),)
        for photo in photos
    )


def contradicts_mirror(caption: str) -> str | None:
    """Return the word of a caption that its mirror image would contradict, None without one.

    >>> contradicts_mirror("a {} on the Left side"), contradicts_mirror("a bright {}")
    ('Left', None)
    """
    found = _SIDED.search(caption)
    return found[0] if found else None


def place(caption: str, token: str, class_word: str, photo: str | None = None) -> str:
    """Return `caption` with `{}` wherever the learned token stands.

    The place may be written as `{}`, as the token itself, as `[trigger]` or as `<embedding>`. In
    a caption with none of these, it is where the token stands without its brackets, as other
    programs want it in prompts, and last the first whole word equal to the class word. Neither is
    looked for in words with hyphens.

    Args:
      caption: one line of text.
      token: the learned token as the user spells it; upper and lower case are the same.
      class_word: what the photos show, one or a few words.
      photo: whose caption it is, for an error; None: it is a prompt.

    Raises:
      InputError: the caption has no place and does not mention the class word, or the token
        cannot be one.

    >>> place("<my-dog> and [trigger]", "<my-dog>", "dog"), place("A Dog, a dog", "<my-dog>", "dog")
    ('{} and {}', 'A {}, a dog')
    >>> place("my-dog and a dog", "<my-dog>", "dog"), place("hot-dog or dog", "<my-dog>", "dog")
    ('{} and a dog', 'hot-dog or {}')
    """
    spellings = "|".join(_whole(spelling) for spelling in (token, *_FOREIGN_PLACES))
    marked = re.sub(spellings, PLACE, caption, flags=re.IGNORECASE)
    for pattern, count in _unmarked(file_name_of(token), class_word):
        if PLACE not in marked:
            marked = re.sub(pattern, PLACE, caption, count=count, flags=re.IGNORECASE)
    if PLACE not in marked:
        name = "the prompt" if photo is None else f"the caption of {photo}"
        instead = "" if photo is None else ", or remove the caption file"
        raise InputError(
            f"{name}: {caption!r} names neither {token} nor {class_word!r}; write for example "
            f"'a photo of {token}'{instead}."
        )
    return marked


def without_class(text: str, class_word: str) -> str:
    """Return a text without the class right behind a place, whose words will say it.

    >>> without_class("{} Dog and {}, a dog", "dog")
    '{} and {}, a dog'
    """
    return re.sub(rf"\{{\}}\s+{_whole(class_word)}", PLACE, text, flags=re.IGNORECASE)


def file_name_of(token: str) -> str:
    """Return the token without its brackets, as the stem of a file name.

    Raises:
      InputError: the token is empty, too long, or would not make a safe file name.

    >>> file_name_of("<my-dog>"), file_name_of("[v1.5]"), file_name_of("sks")
    ('my-dog', 'v1.5', 'sks')
    """
    bracketed = re.fullmatch(r"<(.*)>|\[(.*)\]", token, re.DOTALL)
    name = (bracketed[1] or bracketed[2] or "") if bracketed else token
    size_bytes = len(name.encode("utf-8", "replace"))
    if size_bytes > MAX_TOKEN_BYTES:
        raise InputError(
            f"the token {name[:16]}... has {size_bytes} bytes, the limit is {MAX_TOKEN_BYTES}; "
            "choose a shorter one, for example --token '<my-dog>'."
        )
    if not re.fullmatch(r"\w([\w.-]*\w)?", name) or ".." in name:
        raise InputError(
            f"{token!r} cannot be a token: between its brackets it needs letters, digits, '-', '_' "
            "or single dots, none of them '-' or '.' at either end; write for example "
            "--token '<my-dog>'."
        )
    return name


def _whole(words: str) -> str:
    """Return a pattern for `words`, any blanks between them, not inside of a longer word."""
    pattern = r"\s+".join(re.escape(word) for word in words.split())
    start = r"(?<!\w)" if re.match(r"\s*\w", words) else ""
    end = r"(?!\w)" if re.search(r"\w\s*$", words) else ""
    return f"{start}{pattern}{end}"


def _unmarked(name: str, class_word: str) -> list[tuple[str, int]]:
    """Return patterns of a place that nobody marked, and how many are replaced; 0: all of them.

    The first that is found counts. A token that is a word of its class, too, is looked for before
    the class, and alone only where there is no class.

    Args:
      name: the token without its brackets.
    """
    alone = _unhyphenated(name)
    if not class_word.strip():
        return [(alone, 0)]
    of_class = (_unhyphenated(class_word), 1)
    if name.casefold() not in class_word.casefold().split():
        return [(alone, 0), of_class]
    return [(rf"{alone}(?=\s+{_whole(class_word)})", 0), of_class, (alone, 0)]


def _unhyphenated(words: str) -> str:
    """Return a pattern for whole `words` that are no part of a word with hyphens."""
    return rf"(?<!\w-){_whole(words)}(?!-\w)"
