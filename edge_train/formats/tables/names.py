"""What people call the columns of texts, second texts and labels, the usual names first."""

from collections.abc import Sequence
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.tables.table import Table

TEXTS = (
    *("text", "sentence", "review", "content", "tweet", "comment", "comment_text", "utterance"),
    *("document", "body", "message", "review_body", "sms"),
)
LABELS = (
    *("label", "labels", "class", "sentiment", "target", "gold_label", "category", "intent"),
    *("is_duplicate", "label_text", "quality", "score"),
)
CHATS = ("messages", "conversations", "conversation")
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("text", "text_pair"),
    ("sentence", "sentence_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("#1 string", "#2 string"),
)
NO_WORDS = ("", "nan")  # a label that is none: pandas writes a missing one as either
KNOWN = frozenset({*TEXTS, *LABELS, *(name for pair in PAIRS for name in pair)})
TEXT_FLAG, LABEL_FLAG, PAIR_FLAG = "--text-column", "--label-column", "--pair-column"


def pair_in(table: Table) -> tuple[int, int] | None:
    """Return the places of two texts that a table names as a pair."""
    for first, second in PAIRS:
        texts, seconds = table.among((first,)), table.among((second,))
        if texts and seconds:
            return texts[0], seconds[0]
    return None


def text_place(table: Table, asked: str | None) -> int:
    """Return the place of the texts: asked for, known by name, or the only column.

    Raises:
      InputError: it cannot be known; the message names the flag.
    """
    if asked is not None:
        return table.place(asked, TEXT_FLAG)
    if found := table.among(TEXTS):
        return found[0]
    if len(table.columns) == 1:
        return 0
    raise InputError(
        f"{table.path}: no column is called 'text'; it has {table.names()}. Name the column of "
        f"texts with {TEXT_FLAG} NAME."
    )


def text_of(cell: Any) -> str | None:
    """Return a cell as a text, None where it holds none."""
    if isinstance(cell, str):
        return cell if cell.strip() else None
    return str(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else None


def lengths(rows: Sequence[Sequence[Any]], place: int) -> float:
    """Return the mean length of the texts in a column."""
    return sum(len(text_of(row[place]) or "") for row in rows) / max(len(rows), 1)
