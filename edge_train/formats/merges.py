"""What byte pair encoding merges, looked at before `tokenizers` does: it panics, and prints that.

Its Rust takes a merge to what is no token, or a prefix that is not there, for a fault of its own;
one prefix that ends inside a letter even ends the process.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError


def check_merges(
    path: Path, vocabulary: Iterable[str], merges: Iterable[Any], prefix: str = ""
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
