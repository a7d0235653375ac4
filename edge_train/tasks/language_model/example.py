"""One document as a model gets it, and what of it is learned: the best check of one's own data."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer

from edge_train.tasks.language_model.packing import PackedDocuments

Example = list[tuple[str, bool]]  # texts, and whether they are learned
_MOST_LETTERS = 400  # of each part that is shown


def example_of(task: PackedDocuments, tokenizer: Tokenizer) -> Example:
    """Return the first document that is trained on, in parts that are learned or not."""
    number = int(task.parts[0][0])
    start, end = task.starts[number : number + 2].tolist()
    ids, counts = task.ids[start:end].tolist(), task.counts_of(number)
    edges = [0, *(np.flatnonzero(np.diff(counts.astype(np.int8))) + 1).tolist(), len(ids)]
    parts = []
    for begin, stop in pairwise(edges):
        text = tokenizer.decode(ids[begin:stop], skip_special_tokens=False)
        parts.append((_shortened(text), bool(counts[begin])))
    return parts


def words_of(example: Sequence[tuple[str, bool]]) -> str:
    """Return an example in one line, what is learned between brackets.

    >>> words_of([("2 + 2?\\n", False), ("4", True)])
    '2 + 2?\\\\n[[4]]'
    """
    parts = (f"[[{text}]]" if learned else text for text, learned in example)
    return "".join(parts).replace("\n", "\\n")


def _shortened(text: str) -> str:
    if len(text) <= _MOST_LETTERS:
        return text
    half = _MOST_LETTERS // 2
    return f"{text[:half]} ... {text[-half:]}"
