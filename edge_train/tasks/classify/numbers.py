"""Texts with a number each, for regression: read as labeled texts are, each label a number."""

import math
from collections.abc import Sequence
from pathlib import Path

from edge_train.errors import InputError
from edge_train.tasks.classify.columns import Columns
from edge_train.tasks.classify.texts import Example, LabeledTexts, read_parts

_HELD_OUT = 10  # without a dev file, every tenth example of a single one is held out
_FEWEST = 3  # to train on some and judge by others


def load_numbers(path: Path, asked: Columns | None = None) -> LabeledTexts:
    """Return the examples of a folder (`train.tsv`, `dev.tsv`, ...) or of a single file.

    Raises:
      InputError: a file cannot be used, a label is no number, or all are the same.
    """
    parts = read_parts(path, asked or Columns())
    train, dev, test = parts.train, *(parts.rest(part) for part in ("dev", "test"))
    for examples in (train, dev, test):
        numbers_of(examples, str(path))
    if len(set(numbers_of(train, str(path)))) < 2:
        raise InputError(f"{path}: all {len(train)} examples have the same number; add others.")
    if not dev:
        if len(train) < _FEWEST:
            raise InputError(
                f"{path}: {len(train)} examples are too few to hold some out; add more."
            )
        dev = train[::_HELD_OUT]
        train = tuple(e for number, e in enumerate(train) if number % _HELD_OUT)
    return LabeledTexts(train, dev, test, (), tuple(dict.fromkeys(parts.said)))


def numbers_of(examples: Sequence[Example], source: str) -> list[float]:
    """Return the number of every example.

    Raises:
      InputError: a label is no finite number.
    """
    found = []
    for example in examples:
        try:
            found.append(float(example.label))
        except ValueError:
            found.append(math.nan)
        if not math.isfinite(found[-1]):
            raise InputError(
                f"{source}: label {example.label!r} is no number, which regression needs; correct "
                "it, or use --objective classes."
            )
    return found
