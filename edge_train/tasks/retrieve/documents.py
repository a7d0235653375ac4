"""What is searched: notes in a folder, rows of a table, or a collection with queries."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_train.errors import InputError
from edge_train.formats.inside import wrong_place
from edge_train.formats.left_aside import Reasons, lines_of
from edge_train.formats.tables.coding import coding_of, kind_of, opened_text
from edge_train.formats.tables.names import KNOWN, TEXT_FLAG, TEXTS, text_of, text_place
from edge_train.formats.tables.table import DELIMITED, PARQUET, RECORDS, Table, open_table
from edge_train.tasks.retrieve.recipe import QUERY_FLAG, TITLE_FLAG

NOTES = (".txt", ".md", ".text", ".markdown")
TITLES = ("title", "subject", "headline", "name", "heading")
QUERIES = ("query", "question", "anchor", "search", "prompt")
PASSAGES = ("passage", "answer", "positive", "document", "doc", "context", "response")
PARTS = ("train", "dev", "test")
_TABLES = tuple(kind for kind in (*DELIMITED, *RECORDS, PARQUET) if kind != ".txt")
_CORPUS, _QUERIES, _JUDGED = "corpus.jsonl", "queries.jsonl", "qrels"
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_LONGEST_TITLE = 120  # characters of a first line that may be one
_MOST_NOTES = 200_000  # files of a folder: more are no notes


@dataclass(frozen=True)
class Document:
    """A text with a title, which may be empty, and what people find it by: a file, a row, an id."""

    name: str
    title: str
    text: str


@dataclass(frozen=True)
class Query:
    """What was asked, and the documents that answer it: number -> how well, 1 or more."""

    text: str
    right: Mapping[int, float]


@dataclass
class Collection:
    """Documents, and the queries that came with them, by part; titles are queries only later.

    Attributes:
      notices: what a user should know of how they were read and what was left out, a line each.
    """

    documents: list[Document] = field(default_factory=list)
    queries: dict[str, list[Query]] = field(default_factory=lambda: {part: [] for part in PARTS})
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Columns:
    """Names of columns that a user gave; None: to be found."""

    text: str | None = None
    title: str | None = None
    query: str | None = None


def is_collection(path: Path) -> bool:
    """Return whether a folder is laid out as those of BEIR: corpus, queries and judgements."""
    return all((path / name).is_file() for name in (_CORPUS, _QUERIES))


def read_collection(path: Path, asked: Columns) -> Collection:
    """Return what a file or folder holds.

    Raises:
      InputError: it is missing, cannot be read, or has no document in it.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    found = Collection()
    if path.is_dir() and is_collection(path):
        _read_judged(path, found)
    elif path.is_dir():
        _read_notes(path, found)
    elif kind_of(path) in _TABLES:
        _read_table(path, asked, found)
    else:
        _read_note(path, path.name, found)
    if (kind_of(path) not in _TABLES or path.is_dir()) and any(vars(asked).values()):
        raise InputError(f"{path} is no table, so it has no columns; leave their names out.")
    if not found.documents:
        raise InputError(f"{path}: no document in it has any text; name a folder of notes.")
    return found


def _read_notes(folder: Path, found: Collection) -> None:
    aside: Reasons = {}
    paths = sorted(folder.rglob("*"))
    if len(paths) > _MOST_NOTES:
        raise InputError(
            f"{folder}: {len(paths)} files, at most {_MOST_NOTES}; name a folder in it."
        )
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(part.startswith(".") for part in Path(name).parts):
            continue
        if path.suffix.lower() not in NOTES:
            aside[name] = f"no note: expected {', '.join(NOTES)}"
        elif reason := wrong_place(path, folder):
            aside[name] = reason
        else:
            try:
                if not _read_note(path, name, found):
                    aside[name] = "empty"
            except OSError as error:
                aside[name] = f"cannot be read: {error.strerror}"
            except InputError as error:
                aside[name] = str(error).removeprefix(f"{path}: ").rstrip(".")
    found.notices += lines_of(aside)
    once = {(one.title, one.text): one for one in reversed(found.documents)}
    if twice := len(found.documents) - len(once):
        found.notices.append(f"{twice} notes are there twice, word for word, and are read once")
        found.documents = list(reversed(once.values()))


def _read_note(path: Path, name: str, found: Collection) -> int:
    """Add the sections of a note; return how many there are."""
    if not path.stat().st_size:
        return 0
    coding = coding_of(path)
    with opened_text(path, coding) as file:
        text = file.read()
    if coding.said:
        found.notices.append(coding.said)
    sections = list(sections_of(text, Path(name).stem))
    found.documents += [Document(name, title, body) for title, body in sections]
    return len(sections)


def sections_of(text: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield title and text of each section of a note; one that says nothing is left out.

    A heading of Markdown begins a section and is its title. A note without: a short first line
    that an empty line or the end follows is the title, else the file's name is.

    >>> list(sections_of("# Bread\\nFlour, water.\\n## Time\\nA day.\\n", "note"))
    [('Bread', 'Flour, water.'), ('Time', 'A day.')]
    >>> list(sections_of("Bread\\n\\nFlour, water.", "note"))
    [('Bread', 'Flour, water.')]
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    headings = list(_HEADING.finditer(text))
    if not headings:
        first, _, rest = text.strip().partition("\n")
        title = first.strip()
        if rest.strip() and rest.startswith("\n") and len(title) <= _LONGEST_TITLE:
            yield title, rest.strip()
        elif text.strip():
            yield name.replace("_", " ").replace("-", " "), text.strip()
        return
    if before := text[: headings[0].start()].strip():
        yield name.replace("_", " ").replace("-", " "), before
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=True):
        if body := text[heading.end() : end].strip():
            yield heading[1], body


def _read_table(path: Path, asked: Columns, found: Collection) -> None:
    table = open_table(
        path, {*KNOWN, *TITLES, *QUERIES, *PASSAGES}, (asked.text, asked.title, asked.query)
    )
    query = _place(table, asked.query, QUERY_FLAG, QUERIES)
    title = _place(table, asked.title, TITLE_FLAG, TITLES)
    text = _text_place(table, asked.text, {query, title} - {None})
    if query is not None and text == query:
        raise InputError(
            f"{path}: its queries and texts are the same column; name others with {QUERY_FLAG} "
            f"and {TEXT_FLAG}."
        )
    numbers: dict[tuple[str, str], int] = {}
    asks: dict[str, dict[int, float]] = {}
    for number, row in table.rows():
        body = text_of(row[text])
        head = "" if title is None else (text_of(row[title]) or "").strip()
        if body is None:
            table.wrong.add(number, "has no text")
            continue
        key = (head, body.strip())
        if key not in numbers:
            numbers[key] = len(found.documents)
            found.documents.append(Document(f"{path.name}, {table.wrong.place} {number}", *key))
        if query is not None and (words := text_of(row[query])) is not None:
            asks.setdefault(words.strip(), {})[numbers[key]] = 1.0
    table.wrong.check()
    found.notices += [*table.said, *filter(None, [table.wrong.sentence()])]
    found.queries["train"] = [Query(words, right) for words, right in asks.items()]


def _place(table: Table, asked: str | None, flag: str, names: tuple[str, ...]) -> int | None:
    if asked is not None:
        return table.place(asked, flag)
    return next(iter(table.among(names)), None)


def _text_place(table: Table, asked: str | None, taken: set[int | None]) -> int:
    if asked is None:
        for place in table.among((*TEXTS, *PASSAGES)):
            if place not in taken:
                return place
        free = [place for place in range(len(table.columns)) if place not in taken]
        if len(free) == 1:
            return free[0]
    return text_place(table, asked)


def _read_judged(folder: Path, found: Collection) -> None:
    """Read a collection as BEIR lays it out; an id that nothing has is said and left out."""
    documents: dict[str, int] = {}
    empty = 0
    for row in _rows(folder, _CORPUS, ("_id", "text")):
        text, title = row.get("text") or "", row.get("title") or ""
        if not text.strip() and not title.strip():
            empty += 1
            continue
        documents[row["_id"]] = len(found.documents)
        found.documents.append(Document(row["_id"], title.strip(), text.strip()))
    if empty:
        found.notices.append(f"{empty} documents of {_CORPUS} are empty and left out")
    texts = {row["_id"]: row["text"] for row in _rows(folder, _QUERIES, ("_id", "text"))}
    unknown = 0
    for part in PARTS:
        name = f"{_JUDGED}/{part}.tsv"
        if not (folder / name).is_file():
            continue
        asks: dict[str, dict[int, float]] = {}
        for row in _rows(folder, name, ("query-id", "corpus-id", "score")):
            try:
                score = float(row["score"])
            except ValueError:
                score = math.nan
            if not math.isfinite(score):
                raise InputError(f"{folder / name}: score {row['score'][:40]!r} is no number.")
            if row["query-id"] not in texts or row["corpus-id"] not in documents:
                unknown += 1
            elif score > 0:
                asks.setdefault(row["query-id"], {})[documents[row["corpus-id"]]] = score
        found.queries[part] = [Query(texts[asked], right) for asked, right in asks.items()]
    if unknown:
        found.notices.append(f"{unknown} judgements name a query or document that is not there")


def _rows(folder: Path, file: str, names: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Yield the rows of a file of a collection, every cell as a text."""
    path = folder / file
    if reason := wrong_place(path, folder):
        raise InputError(f"{path}: it is {reason}.")
    table = open_table(path, names)
    if missing := [name for name in names if name not in table.columns]:
        raise InputError(f"{path}: no column {missing[0]!r}; it has {table.names()}.")
    for number, row in table.rows():
        cells = dict(zip(table.columns, row, strict=True))
        if text_of(cells[names[0]]) is None:
            table.wrong.add(number, f"has no {names[0]}")
            continue
        yield {name: text_of(cell) or "" for name, cell in cells.items()}
    table.wrong.check()
