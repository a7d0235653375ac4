"""What is trained on: queries with passages that answer them, and passages that only look so."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.tasks.retrieve.bm25 import BM25
from edge_train.tasks.retrieve.documents import PARTS, Collection, Document, Query
from edge_train.tasks.retrieve.passages import without_title

MINED = 32  # passages a query that are kept of what BM25 finds
_MOST_RIGHT = 64  # documents a query; a title of more of them is no query
_REPEATED = 4  # documents of one title, above which it says too little to be a query
_HELD_OUT = 10  # without a dev part, every tenth query is held out
_MOST_HELD_OUT = 200


@dataclass(frozen=True)
class Asked:
    """A query of some part.

    Attributes:
      text: its number among all encoded texts.
      words: as they were written.
      bare: whether passages are compared without their titles: the query is one.
      right: documents -> how well they answer.
    """

    text: int
    words: str
    bare: bool
    right: Mapping[int, float]


@dataclass(frozen=True)
class Questions:
    """Queries of one part as arrays, one row each, filled up with -1.

    Attributes:
      query: (queries,) numbers of texts.
      bare: (queries,) bool.
      answers: (queries, any) the best passage of each right document.
      right: (queries, any) right documents.
      mined: (queries, MINED) passages that BM25 takes for right and that are not.
    """

    query: NDArray[np.int64]
    bare: NDArray[np.bool_]
    answers: NDArray[np.int64]
    right: NDArray[np.int64]
    mined: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.query)

    def tensors(self, part: str) -> dict[str, NDArray[Any]]:
        """Return plain arrays to store; `from_tensors` reads them back."""
        return {f"{part}/{name}": values for name, values in vars(self).items()}

    @classmethod
    def from_tensors(cls, part: str, tensors: Mapping[str, NDArray[Any]]) -> "Questions":
        """Return what `tensors` stored of a part.

        Raises:
          KeyError: something is missing.
        """
        names = ("query", "bare", "answers", "right", "mined")
        return cls(**{name: tensors[f"{part}/{name}"] for name in names})


def asked_of(
    found: Collection, kind: str, titles: Mapping[int, int], first: int
) -> tuple[dict[str, list[Asked]], list[str], list[str]]:
    """Return queries by part, the texts that are encoded for them, and what is said of them.

    Args:
      kind: `titles`, `given`, or `auto` for both.
      titles: document -> the number of its title among the texts.
      first: the number of the next text.
    """
    texts: list[str] = []
    parts: dict[str, list[Asked]] = {}
    for part in PARTS:
        parts[part] = []
        for query in found.queries[part] if kind != "titles" or part == "test" else ():
            right = most_right(query)
            parts[part].append(Asked(first + len(texts), query.text, False, right))
            texts.append(query.text)
    said: list[str] = []
    by_title: list[Asked] = []
    if kind != "given":
        by_title, said = asked_of_titles(found.documents, titles)
    if not parts["dev"]:
        rows = parts["train"] or by_title
        some = rows[:: max(_HELD_OUT, -(-len(rows) // _MOST_HELD_OUT))] if len(rows) > 1 else []
        held = {id(one) for one in some}
        parts["dev"] = some
        parts["train"] = [one for one in parts["train"] if id(one) not in held]
        by_title = [one for one in by_title if id(one) not in held]
    parts["train"] += by_title
    return parts, texts, said


def most_right(query: Query) -> dict[int, float]:
    """Return the documents that answer a query best, at most `_MOST_RIGHT` of them."""
    best = sorted(query.right.items(), key=lambda one: -one[1])
    return dict(best[:_MOST_RIGHT])


def asked_of_titles(
    documents: Sequence[Document], titles: Mapping[int, int]
) -> tuple[list[Asked], list[str]]:
    """Return a query for every title that few documents share, and what is said of the others."""
    same: dict[str, list[int]] = defaultdict(list)
    for number, document in enumerate(documents):
        if document.title and without_title(document):
            same[document.title.casefold()].append(number)
    found, repeated = [], 0
    for numbers in same.values():
        document = documents[numbers[0]]
        if len(numbers) > _REPEATED:
            repeated += len(numbers)
        else:
            right = dict.fromkeys(numbers, 1.0)
            found.append(Asked(titles[numbers[0]], document.title, True, right))
    said = []
    if repeated:
        said.append(
            f"{repeated} documents share a title with more than {_REPEATED - 1} others: such "
            "titles are searched, and not trained on"
        )
    return found, said


def questions_of(
    asked: Sequence[Asked],
    passages: Mapping[int, Sequence[int]],
    owners: NDArray[np.int32],
    words: BM25,
) -> Questions:
    """Return queries with their passages.

    Args:
      passages: document -> its passages.
      owners: (passages,) the document of each.
      words: BM25 over the passages.
    """
    answers, right, mined = [], [], []
    for one in asked:
        scores = words.scores(one.words)
        answers.append([max(passages[d], key=lambda p: (scores[p], -p)) for d in one.right])
        right.append(list(one.right))
        order = np.argsort(-scores, kind="stable")[: MINED + len(one.right) * 4]
        order = order[(scores[order] > 0) & ~np.isin(owners[order], right[-1])]
        mined.append(order[:MINED].tolist())
    return Questions(
        np.array([one.text for one in asked], np.int64),
        np.array([one.bare for one in asked], np.bool_),
        _filled(answers),
        _filled(right),
        _filled(mined, MINED),
    )


def _filled(rows: Sequence[Iterable[int]], width: int | None = None) -> NDArray[np.int64]:
    lists = [list(row) for row in rows]
    most = width or max((len(row) for row in lists), default=1)
    found = np.full((len(lists), most), -1, np.int64)
    for number, row in enumerate(lists):
        found[number, : len(row)] = row
    return found
