"""Which pictures a run has: a folder or table of enough classes, and some of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edge_train.errors import InputError
from edge_train.formats.labeled_pictures import LabeledPictures, labeled_pictures
from edge_train.rng import Key

_MOST_CLASSES = 1000
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


def find_pictures(data: Path, label_column: str | None) -> LabeledPictures:
    """Return the pictures of a folder or table, by their classes.

    Raises:
      InputError: there is none, or fewer than two classes or too many.
    """
    if not data.exists() or (data.is_file() and data.suffix.lower() not in _TABLES):
        is_there = "it is no table" if data.exists() else "there is no such folder or table"
        raise InputError(
            f"data {data}: {is_there}; name a folder with a subfolder of pictures for each "
            "class, or a table of path and label (.csv, .tsv, .jsonl, .parquet)."
        )
    found = labeled_pictures(data, label_column)
    if len(found.names) < 2:
        raise InputError(
            f"data {data}: all pictures are of one class ({found.names[0]!r}); two are the "
            "fewest that can be told apart."
        )
    if len(found.names) > _MOST_CLASSES:
        raise InputError(
            f"data {data}: {len(found.names)} classes, at most {_MOST_CLASSES} are handled."
        )
    return found


def subset(
    listed: Sequence[tuple[Path, str, int]], most: int | None
) -> Sequence[tuple[Path, str, int]]:
    """Return so many pictures at most, of all classes alike, always the same."""
    if most is None or most >= len(listed):
        return listed
    order = Key(0, 0).generator("subset").permutation(len(listed))
    seen: Counter[int] = Counter()
    ranked = []
    for number in order.tolist():
        label = listed[number][2]
        ranked.append((seen[label], number))
        seen[label] += 1
    chosen = sorted(number for _, number in sorted(ranked)[:most])
    kept = [listed[number] for number in chosen]
    if missing := len(seen) - len({label for *_, label in kept}):
        raise InputError(
            f"train_samples is {most}, which leaves {missing} of {len(seen)} classes without a "
            f"picture; use at least {len(seen)}."
        )
    return kept
