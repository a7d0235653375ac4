"""Documents made ready: passages on disk, their tokens encoded, queries with their passages."""

import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.projections import start_values
from edge_train.arrays.types import Array
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.atomic import write_parts
from edge_train.formats.tensor_store import load_tensors, save_tensors
from edge_train.runtimes.token_vectors import TokenVectors, write_vectors
from edge_train.tasks.retrieve.bm25 import BM25
from edge_train.tasks.retrieve.documents import Collection
from edge_train.tasks.retrieve.encoding import Encoding
from edge_train.tasks.retrieve.passages import Reader, passages_of
from edge_train.tasks.retrieve.questions import Asked, Questions, asked_of, questions_of
from edge_train.tasks.retrieve.scores import ranking

START_FILE, TOKENS, TEXTS = "start.safetensors", "token_vectors.bin", "passages.jsonl"
OUTPUTS = 128  # numbers of a token that are compared, where the encoder has as many
_SAMPLED_TEXTS = 2000  # whose tokens say which directions are the principal ones
_MOST_SCORED = 200  # queries that are ranked before and after training


@dataclass(frozen=True)
class Scored:
    """Queries that a run is judged by, and what BM25 finds for them.

    Attributes:
      part: they are of; `test` where there is one, else `dev`.
      query: (queries,) numbers of texts.
      words: the queries.
      right: documents -> how well they answer, by query.
      by_words: the documents that BM25 ranks first, by query.
      bare: whether they are titles: passages are then without theirs, or each would find its own.
    """

    part: str
    query: NDArray[np.int64]
    words: tuple[str, ...]
    right: tuple[Mapping[int, float], ...]
    by_words: tuple[tuple[int, ...], ...]
    bare: bool

    def to_json(self) -> str:
        """Return all of it as a text."""
        right = [[[key, value] for key, value in one.items()] for one in self.right]
        content = (self.part, self.query.tolist(), self.words, right, self.by_words, self.bare)
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> "Scored":
        """Return what `to_json` wrote; earlier versions judged titles as any other query.

        Raises:
          ValueError: it is none.
        """
        part, query, words, right, by_words, *bare = json.loads(text)
        return cls(
            part,
            np.array(query, np.int64),
            tuple(words),
            tuple({int(key): float(value) for key, value in one} for one in right),
            tuple(map(tuple, by_words)),
            bare == [True],
        )


@dataclass(frozen=True)
class Corpus:
    """What training and indexing read.

    Attributes:
      starts: (texts + 1,) where the tokens of each text begin: passages, titles, queries.
      owners: (passages,) the document of each.
      titles: (passages,) the text that is its title; -1: none.
      lines: (passages + 1,) where each begins in the file of passages.
      names: what documents are called.
      start: the head's values before training.
      token_sum: CRC-32 of the file of tokens.
    """

    folder: Path
    width: int
    starts: NDArray[np.int64]
    owners: NDArray[np.int32]
    titles: NDArray[np.int64]
    lines: NDArray[np.int64]
    train: Questions
    dev: Questions
    scored: Scored
    start: Mapping[str, Array]
    token_sum: str

    @property
    def passages(self) -> int:
        """How many there are."""
        return len(self.owners)

    def vectors(self) -> TokenVectors:
        """Return the tokens of all texts.

        Raises:
          RunFolderError: their file is damaged.
        """
        return TokenVectors(self.folder / TOKENS, self.starts, self.width)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return every array, by name."""
        plain = {name: getattr(self, name) for name in ("starts", "owners", "titles", "lines")}
        begun = {f"start/{name}": values for name, values in self.start.items()}
        return {**plain, **begun, **self.train.tensors("train"), **self.dev.tensors("dev")}

    def save(self, folder: Path, about: Mapping[str, str]) -> None:
        """Keep it in a folder, beside the tokens."""
        more = {"width": str(self.width), "token_sum": self.token_sum}
        metadata = {**about, **more, "scored": self.scored.to_json()}
        save_tensors(folder / START_FILE, self.tensors(), metadata)


def load_corpus(folder: Path, place: Path) -> Corpus:
    """Return what `save` kept, after comparing every checksum.

    Args:
      place: where the passages are.

    Raises:
      RunFolderError: something is missing or damaged.
    """
    tensors, about = load_tensors(folder / START_FILE)
    try:
        start = {n.removeprefix("start/"): v for n, v in tensors.items() if n.startswith("start/")}
        found = Corpus(
            folder,
            int(about["width"]),
            tensors["starts"],
            tensors["owners"],
            tensors["titles"],
            tensors["lines"],
            Questions.from_tensors("train", tensors),
            Questions.from_tensors("dev", tensors),
            Scored.from_json(about["scored"]),
            start,
            about["token_sum"],
        )
    except (LookupError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{folder / START_FILE}: cannot be used ({error}).") from error
    if _sum_of(found.vectors()) != found.token_sum:
        raise RunFolderError(f"{folder / TOKENS}: its checksum does not match; it is damaged.")
    size = (place / TEXTS).stat().st_size if (place / TEXTS).is_file() else -1
    if size != found.lines[-1]:
        raise RunFolderError(f"{place / TEXTS}: {size} bytes, expected {found.lines[-1]}.")
    return found


def _sum_of(vectors: TokenVectors) -> str:
    crc = 0
    for part in vectors.checksum_parts():
        crc = zlib.crc32(part, crc)
    return f"{crc:08x}"


@dataclass
class Builder:
    """Makes a corpus of a collection, in a folder.

    Args:
      place: a folder for the passages; tokens lie in `folder`.
      queries: `titles`, `given` or `auto`.
      say: told what happens, a line at a time.

    Attributes:
      notices: of queries that are not trained on, and the like.
    """

    found: Collection
    reader: Reader
    encoding: Encoding
    place: Path
    folder: Path
    queries: str
    projection: str
    seed: int
    say: Callable[[str], None]
    notices: list[str] = field(default_factory=list)

    def build(self) -> Corpus:
        """Return it; its tokens and passages are in the folder.

        Raises:
          InputError: there is nothing to train on.
          RunFolderError: the folder cannot be written.
        """
        documents = self.found.documents
        some = (one for one in passages_of(documents, self.reader) if _says(one.text))
        passages = list(some)
        if not passages:
            raise InputError("no document has a word in it; name a folder of notes.")
        owners = np.array([one.document for one in passages], np.int32)
        title_texts, title_of = self._titles(len(passages))
        titles = np.array([title_of.get(int(one), -1) for one in owners], np.int64)
        for place, one in enumerate(passages):  # a document that is its title has it once
            if one.text == documents[one.document].title:
                titles[place] = -1
        first = len(passages) + len(title_texts)
        asked, texts, said = asked_of(self.found, self.queries, title_of, first)
        self.notices += said
        self._check(asked)
        lines = self._write_passages(passages)
        words = BM25(f"{documents[p.document].title} {p.text}" for p in passages)
        of_document: dict[int, list[int]] = defaultdict(list)
        for number, owner in enumerate(owners.tolist()):
            of_document[owner].append(number)
        train, dev = (
            questions_of(asked[part], of_document, owners, words) for part in ("train", "dev")
        )
        part = "test" if asked["test"] else "dev"
        judged = asked[part][:_MOST_SCORED]
        if bare := all(one.bare for one in judged):  # all are titles, or none is
            del words
            words = BM25(p.text for p in passages)
        scored = _scored(part, judged, words, owners, bare=bare)
        del words
        total = len(passages) + len(title_texts) + len(texts)
        self.say(
            f"{len(documents)} documents in {len(passages)} passages; {len(train)} queries to "
            f"train on, {len(dev)} held out, {len(asked['test'])} for the test"
        )
        self.say(f"encoding {total} texts once; only the head is trained")
        every = chain((one.text for one in passages), title_texts, texts)
        write_vectors(self.folder / TOKENS, self.encoding.records(every))
        starts = np.concatenate([[0], np.cumsum(self.encoding.counts)]).astype(np.int64)
        vectors = TokenVectors(self.folder / TOKENS, starts, self.encoding.width)
        start = start_values(self.projection, directions(vectors), self.seed)
        return Corpus(
            self.folder,
            self.encoding.width,
            starts,
            owners,
            titles,
            lines,
            train,
            dev,
            scored,
            start,
            _sum_of(vectors),
        )

    def _titles(self, first: int) -> tuple[list[str], dict[int, int]]:
        """Return each title once, and the number of every document's among the texts."""
        numbers: dict[str, int] = {}
        found: dict[int, int] = {}
        for number, document in enumerate(self.found.documents):
            if _says(document.title):
                found[number] = first + numbers.setdefault(document.title, len(numbers))
        return list(numbers), found

    def _check(self, asked: Mapping[str, Sequence[Asked]]) -> None:
        count = len(asked["train"])
        if count and asked["dev"]:
            return
        kind = {
            "titles": "no title that can be one",
            "given": "no query came with them",
            "auto": "neither queries nor titles that can be some",
        }[self.queries]
        documents = len(self.found.documents)
        raise InputError(
            f"{documents} document{'s' * (documents != 1)} and {count + len(asked['dev'])} queries "
            f"to learn from, at least 2 are needed ({kind}); add documents with titles, or name a "
            "table with a column of queries (--query-column)."
        )

    def _write_passages(self, passages: Sequence[Any]) -> NDArray[np.int64]:
        """Write a JSON line a passage; return where each begins."""
        ends = [0]

        def content() -> Iterator[bytes]:
            for one in passages:
                document = self.found.documents[one.document]
                row = {"name": document.name, "title": document.title, "text": one.text}
                line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
                ends.append(ends[-1] + len(line))
                yield line

        write_parts(self.place / TEXTS, content())
        return np.array(ends, np.int64)


def directions(vectors: TokenVectors) -> Array:
    """Return the principal directions of the tokens, (outputs, width), the largest first.

    Of tokens of length 1, not centred: products are to stay what they are. Each has its largest
    number above zero.

    Memory: a matrix of width by width, and a text's tokens.
    """
    total = np.zeros((vectors.width, vectors.width), np.float64)
    step = max(1, len(vectors) // _SAMPLED_TEXTS)
    for text in range(0, len(vectors), step):
        tokens = vectors.text(text).astype(np.float64)
        tokens /= np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
        total += tokens.T @ tokens
    _, found = np.linalg.eigh(total)
    best = found[:, ::-1][:, : min(OUTPUTS, vectors.width)].T
    signs = np.sign(best[np.arange(len(best)), np.abs(best).argmax(axis=1)])
    found32: Array = (best * signs[:, None]).astype(np.float32)
    return found32


def _scored(
    part: str, some: Sequence[Asked], words: BM25, owners: NDArray[np.int32], *, bare: bool
) -> Scored:
    return Scored(
        part,
        np.array([one.text for one in some], np.int64),
        tuple(one.words for one in some),
        tuple(one.right for one in some),
        tuple(tuple(ranking(words.scores(one.words), owners)) for one in some),
        bare,
    )


def _says(text: str) -> bool:
    return any(map(str.isalnum, text))
