"""Passages as a file of token ids, with where each begins and what of it is to be predicted."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from edge_train.formats.atomic import write_parts
from edge_train.formats.chat_template import Span
from edge_train.tasks.language_model.marks import Marks
from edge_train.tasks.language_model.passages import Passage
from edge_train.tasks.language_model.token_stream import together


def _numbers() -> "array[int]":
    return array("q")


@dataclass
class WrittenChats:
    """What was written.

    Attributes:
      starts: where documents begin, and the end.
      counted: begin and end of every range of ids that is predicted, one behind the other.
      held: documents of files to hold out.
      sources: what the source of each document is called.
      new_lines: how many pairs got a new line between them and how many did not, by `new_line` of
        `Passage`.
      lengths: tokens of every document that was read, before it was cut.
      cut: documents that lost their end.
      shortened: the numbers of those of them that are kept.
      unanswered: those that are left out, since no answer begins within what is left.
    """

    starts: "array[int]" = field(default_factory=lambda: array("q", [0]))
    counted: "array[int]" = field(default_factory=_numbers)
    held: int = 0
    lengths: "array[int]" = field(default_factory=_numbers)
    cut: int = 0
    shortened: "array[int]" = field(default_factory=_numbers)
    unanswered: int = 0
    sources: list[str] = field(default_factory=list)
    new_lines: Counter[bool | None] = field(default_factory=Counter)

    def add(
        self, ids: list[int], counts: NDArray[np.bool_], most: int, *, held: bool, source: str
    ) -> list[int]:
        """Take a document in; return what of its ids is kept, nothing where it is left out."""
        self.lengths.append(len(ids))
        self.cut += len(ids) > most
        kept, counts = ids[:most], counts[:most]
        if not counts[1:].any():
            self.unanswered += 1
            return []
        if len(ids) > most:
            self.shortened.append(len(self.starts) - 1)
        start = self.starts[-1]
        edges = np.flatnonzero(np.diff(counts.astype(np.int8), prepend=0, append=0))
        self.counted.extend((edges + start).tolist())
        self.starts.append(start + len(kept))
        self.held += held
        self.sources.append(source)
        return kept


def write_chats(
    parts: Sequence[tuple[Iterator[Passage], bool]],
    marks: Marks,
    tokenizer: Tokenizer,
    out: Path,
    kind: np.dtype[Any],
    most: int,
) -> WrittenChats:
    """Write the ids of passages to `out`, whole or not at all.

    Args:
      parts: passages, and whether they are held out.
      marks: where a document begins and ends, if nothing in its text says so.
      most: ids of a document; it loses its end, or goes on in another one.

    Raises:
      InputError: a file cannot be read.
      RunFolderError: `out` cannot be written.

    Memory: some passages with their ids, and a few numbers for each of all of them.
    """
    written = WrittenChats()
    write_parts(out, _encoded(parts, marks, tokenizer, kind, most, written))
    return written


def _encoded(
    parts: Sequence[tuple[Iterator[Passage], bool]],
    marks: Marks,
    tokenizer: Tokenizer,
    kind: np.dtype[Any],
    most: int,
    written: WrittenChats,
) -> Iterator[bytes]:
    before: list[int] = []  # the last token of a note that goes on, which predicts the next one
    for passages, held in parts:
        for some in together(passages, lambda one: len(one.text)):
            # A template writes the tokens of control itself: none is added, so none is there twice.
            texts = [one.text for one in some]
            encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
            ids: list[int] = []
            for passage, found in zip(some, encodings, strict=True):
                own, counts = found.ids, counted_tokens(found, passage.answers)
                written.new_lines[passage.new_line] += 1
                first = [*before, *(marks.begin if passage.begins else ())]
                end = marks.end if passage.ends else ()
                own = [*first, *own, *end]
                counts = np.pad(counts, (len(first), len(end)), constant_values=(False, True))
                before = own[-1:] if passage.goes_on and not passage.ends else []
                # the last token of a piece stands before the next one, too: all are predicted
                starts = range(0, len(own) - 1, most - 1) if passage.goes_on else (0,)
                for start in starts:
                    stop = start + most if passage.goes_on else len(own)
                    some_ids, some_counts = own[start:stop], counts[start:stop]
                    ids += written.add(
                        some_ids, some_counts, most, held=held, source=passage.source
                    )
            yield np.array(ids, kind).tobytes()


def counted_tokens(encoding: Encoding, answers: list[Span] | None) -> NDArray[np.bool_]:
    """Return which tokens begin within a span; one that begins before it is of the prompt.

    The whole text was tokenized at once, so that the ids are those of an app that does so too.
    """
    if answers is None:
        return np.ones(len(encoding.ids), bool)
    begins = np.array(encoding.offsets, np.int64).reshape(-1, 2)[:, 0]
    found = np.zeros(len(begins), bool)
    for start, end in answers:
        found |= (begins >= start) & (begins < end)
    return found
