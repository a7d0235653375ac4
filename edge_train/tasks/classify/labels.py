"""Labels as words or numbers, and which output of a model each of them is."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.tables.names import NO_WORDS
from edge_train.formats.tables.numbers import number, whole
from edge_train.units import shown

UNLABELED = "-1"  # what the hub and GLUE write where a label is kept secret
UNDECIDED = "-"  # what SNLI and MNLI write where those who labelled a text did not agree
_MOST_NUMBERS = 20  # different numbers with fractions that may still be names of classes


def written(cell: Any) -> str | None:
    """Return a label as text, None where there is none; whole numbers are written one way.

    >>> [written(cell) for cell in (" ham ", 1, 1.0, "1.0", True, "", None, math.nan, "NaN")]
    ['ham', '1', '1', '1', 'true', None, None, None, None]
    """
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int):
        return str(cell)
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return None
        return str(int(cell)) if cell == int(cell) else repr(cell)
    if not isinstance(cell, str) or (text := cell.strip()).casefold() in NO_WORDS:
        return None
    if "." in text and (value := whole(text)) is not None:
        return str(value)
    return text


def is_undecided(found: Collection[str]) -> bool:
    """Return whether "-" among labels is none: others are words, and not one of them is "+".

    >>> is_undecided({"-", "neutral", "entailment"}), is_undecided({"-", "+", "0"})
    (True, False)
    """
    return UNDECIDED in found and "+" not in found and len(found) > 2


def labels_of(
    source: Path, found: Collection[str], names: Sequence[str], order: Sequence[str] = ()
) -> tuple[tuple[str, ...], str]:
    """Return the labels in the order of the outputs, and a line for the user or nothing.

    Args:
      found: every label of the training examples.
      names: what the model calls its outputs; none for a model that gets as many as there are
        labels: numbers stand in their order, words in that of the alphabet.
      order: what the data calls its classes, in their order, where it says so.

    Raises:
      InputError: they do not fit the model, or are numbers of a scale.
    """
    in_order = _ordered(found)
    if len(in_order) == 1:
        raise InputError(
            f"{source}: all examples have the label {shown(in_order[0])}; to tell classes apart "
            "takes examples of two at least."
        )
    _check_classes(source, in_order)
    if order and set(found) <= set(order):
        in_order = tuple(order)
    if not names:
        return in_order, ""
    if set(in_order) <= set(names):
        return tuple(names), ""
    numbers = _numbers(in_order)
    if numbers is not None:
        return _numbered(source, in_order, numbers, names)
    spelled = {label.casefold(): label for label in in_order}
    own = [name.casefold() for name in names]
    if len(spelled) == len(in_order) and set(spelled) <= set(own) and len(set(own)) == len(own):
        labels = (spelled.get(one, name) for one, name in zip(own, names, strict=True))
        return tuple(labels), ""  # Positive and positive
    if len(in_order) == len(names) and all(name.startswith("LABEL_") for name in names):
        return in_order, ""  # the model's outputs have no names of their own
    if in_order == tuple(order) and len(order) == len(names):
        return in_order, _in_that_order(in_order, names)  # the classes 0, 1, ... of both
    raise InputError(
        f"{source}: labels {', '.join(map(shown, in_order[:5]))} do not fit a model whose "
        f"{len(names)} classes are {', '.join(map(shown, names[:5]))}; use --new-head for a head "
        "with an output for each label, or write those names, or numbers from 0 on. If another "
        "column has the labels, name it with --label-column."
    )


def _numbered(
    source: Path, in_order: tuple[str, ...], numbers: Sequence[int], names: Sequence[str]
) -> tuple[tuple[str, ...], str]:
    """Return labels that are whole numbers: from 0 on, or from elsewhere, in their order."""
    count = len(names)
    if numbers[0] >= 0 and numbers[-1] < count:
        from_zero = tuple(map(str, range(count)))
        if set(in_order) <= set(from_zero):
            return from_zero, ""
    shift = numbers[-1] - count + 1
    if len(in_order) == count or (shift == 1 and numbers[0] >= 1):
        labels = in_order if len(in_order) == count else tuple(map(str, range(1, count + 1)))
        return labels, _in_that_order(labels, names)
    wrong = next(one for one, n in zip(in_order, numbers, strict=True) if not 0 <= n < count)
    raise InputError(
        f"{source}: label {wrong} is out of range; the model has {count} classes, 0 to "
        f"{count - 1}. Use --new-head for a head with an output for each label."
    )


def _in_that_order(labels: Sequence[str], names: Sequence[str]) -> str:
    ends = (labels[0], labels[-1])
    first, last = (one if whole(one) is not None else shown(one) for one in ends)
    return (
        f"labels {first} to {last} are the model's {len(names)} outputs in that order: "
        f"{first} is {shown(names[0])}, {last} is {shown(names[-1])}"
    )


def _ordered(found: Collection[str]) -> tuple[str, ...]:
    words = sorted(found)
    numbers = _numbers(words)
    if numbers is None:
        return tuple(words)
    return tuple(word for _, word in sorted(zip(numbers, words, strict=True)))


def _numbers(labels: Sequence[str]) -> list[int] | None:
    values = [whole(label) for label in labels]
    return None if None in values else [value for value in values if value is not None]


def _check_classes(source: Path, labels: Sequence[str]) -> None:
    """Refuse numbers of a scale, of which each would be a class of its own.

    Raises:
      InputError: as described.
    """
    values = [number(label) for label in labels]
    if len(labels) <= _MOST_NUMBERS or None in values or _numbers(labels) is not None:
        return
    raise InputError(
        f"{source}: the labels are {len(labels)} different numbers with fractions, as "
        f"{labels[0]} and {labels[1]}: a scale, not classes. Use --objective regression, "
        "or name the column of classes with --label-column."
    )
