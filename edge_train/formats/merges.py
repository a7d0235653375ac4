"""What byte pair encoding merges, looked at before `tokenizers` does: it panics, and prints that.

Its Rust takes a merge to what is no token, or a prefix that is not there, for a fault of its own;
one prefix that ends inside a letter even ends the process.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError


class Merges(Sequence[tuple[str, str]]):
    """Pairs of pieces that are made while `tokenizers` takes them over, one at a time.

    A list of them would take 160 bytes a pair, tens of megabytes, while the library copies it.

    Args:
      count: how many there are.
      pairs: returns them in their order, anew at every call.
    """

    def __init__(self, count: int, pairs: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._count, self._pairs = count, pairs

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs())

    def __getitem__(self, at: Any) -> Any:
        return list(self._pairs())[at]


def check_merges(
    path: Path, vocabulary: Container[str], merges: Iterable[Any], prefix: str = ""
) -> None:
    """Raise ModelError where two pieces merge to what is no token.

    Lines that are no two pieces are left to `tokenizers`, which has a sentence of its own for them.

    Args:
      path: where they were read.
      merges: "left right", or both in a list.
      prefix: of pieces inside a word, which a merge takes off the right one.
    """
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or [type(one) for one in pair] != [str, str]:
            continue
        left, right = pair
        if not right.startswith(prefix) or left + right[len(prefix) :] not in vocabulary:
            said = f"{left} {right}"[:40]
            raise ModelError(
                f"{path}: merges {said!r} to what is no token; download the model again."
            )


def is_in_words(merge: Any) -> bool:
    """Return whether "left right" says what two pieces in a list do.

    A piece with a space is parted there, and what begins as the first line of merges.txt is left
    out.

    >>> is_in_words(["a", "b"]), is_in_words(["a b", "c"]), is_in_words(["#version", "c"])
    (True, False, False)
    """
    if not isinstance(merge, list) or [type(one) for one in merge] != [str, str]:
        return False
    left, right = merge
    return bool(left and right) and " " not in left + right and not left.startswith("#version")
