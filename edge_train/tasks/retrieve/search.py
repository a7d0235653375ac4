"""Answer queries in the terminal: the passages that are found, with the words that matched."""

import json
import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edge_train.arrays.projections import project
from edge_train.arrays.types import Array
from edge_train.errors import InputError, RunFolderError
from edge_train.formats.encoder_folder import EncoderFolder, open_encoder
from edge_train.formats.hub import find_folder
from edge_train.formats.tokenizer_files import open_tokenizer
from edge_train.memory.machine import cores
from edge_train.records.folder import RunFolder
from edge_train.tasks import read_recipe
from edge_train.tasks.retrieve.corpus import TEXTS
from edge_train.tasks.retrieve.encoding import Encoder, open_engine
from edge_train.tasks.retrieve.finding import Hit, Index
from edge_train.tasks.retrieve.index import HEAD
from edge_train.tasks.retrieve.model import engine_of
from edge_train.tasks.retrieve.passages import Reader, Tokens, padded
from edge_train.tasks.retrieve.recipe import RetrieveRecipe

_INDEX = "index"
_MOST_COUNT = 100
_MATCHES = 0.5  # a product of two tokens from which on their words count as matching
_SHORTEST = 3  # letters of a word that is marked: shorter ones are articles and the like
_SHOWN = 320  # characters of a passage
_WIDTH = 96  # of a line, where no terminal says it
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Shown:
    """A hit as people read it.

    Attributes:
      matches: where its matching words lie in the text, first and behind the last letter.
    """

    name: str
    title: str
    text: str
    score: float
    matches: tuple[tuple[int, int], ...]

    def record(self, rank: int) -> dict[str, Any]:
        """Return it for `--json`."""
        words = [self.text[a:b] for a, b in self.matches]
        plain = {"rank": rank, "score": round(self.score, 4), "document": self.name}
        return {**plain, "title": self.title, "passage": self.text, "matches": words}


@dataclass(frozen=True)
class Searcher:
    """An opened index with the encoder of its queries."""

    index: Index
    reader: Reader
    encoder: Encoder
    pad: int

    def ask(self, query: str, count: int) -> tuple[list[Shown], str]:
        """Return the best documents for a query, and what is said of it.

        Raises:
          InputError: it is empty, or the model knows no word of it.
        """
        tokens = self._read(query)
        said = ""
        if tokens.unknown:
            said = f"{tokens.unknown} tokens of the query are unknown to the model and left out"
        vectors = self._vectors(tokens)
        hits = self.index.search(vectors, count)
        return [self._shown(hit, vectors) for hit in hits], said

    def vectors(self, query: str) -> Array:
        """Return the tokens of a query, (tokens, width), each of length 1.

        Raises:
          InputError: it is empty, or the model knows no word of it.
        """
        return self._vectors(self._read(query))

    def _read(self, query: str) -> Tokens:
        if not query.strip():
            raise InputError("the query is empty; write what you look for, in quotes.")
        tokens = self.reader.read([query])[0]
        if not tokens.kept:
            raise InputError(
                f"the model knows no word of {query[:60]!r}; ask in words of a language and script "
                "that it was trained on."
            )
        return tokens

    def _vectors(self, tokens: Tokens) -> Array:
        ids, mask = padded([tokens], self.pad)
        hidden = self.encoder.hidden(ids, mask)[0, tokens.kept]
        found = project(self.index.head, hidden)
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found

    def _shown(self, hit: Hit, query: Array) -> Shown:
        """Return a hit with the words whose tokens are the best matches of the query's."""
        text = self.index.text(hit.passage)
        places = self.reader.read([text.text])[0].offsets
        tokens, _ = self.index.tokens([hit.passage])
        products = query @ tokens.T
        best = products.argmax(axis=1)
        good = best[(products.max(axis=1) >= _MATCHES) & (best < len(places))]  # titles come last
        words = {_word(text.text, *places[place]) for place in good.tolist()}
        matches = sorted((a, b) for a, b in words if b - a >= _SHORTEST)
        return Shown(text.name, text.title, text.text, hit.score, tuple(matches))


def search(
    run: Path,
    queries: Iterable[str],
    out: TextIO,
    *,
    count: int,
    threads: int | None,
    as_json: bool,
    several: bool,
) -> None:
    """Write the best documents for each query.

    Args:
      several: each query stands above its hits.

    Raises:
      InputError: a query cannot be asked.
      ModelError, RunFolderError: the run, its index or its model cannot be used.
    """
    if not 1 <= count <= _MOST_COUNT:
        raise InputError(f"--count is {count}, must be from 1 to {_MOST_COUNT}.")
    searcher = open_searcher(run, threads)
    try:
        for query in queries:
            try:
                found, said = searcher.ask(query, count)
            except InputError as error:
                if not several:
                    raise
                found, said = [], str(error)
            if as_json:
                hits = [one.record(rank) for rank, one in enumerate(found, 1)]
                row = {"query": query, **({"notice": said} if said else {}), "hits": hits}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            else:
                if several:
                    out.write(f"--- {query}\n")
                if said:
                    out.write(f"{said}\n")
                out.write(in_words(found, bold=out.isatty()))
            out.flush()
    finally:
        searcher.encoder.close()


def open_searcher(run: Path, threads: int | None) -> Searcher:
    """Return what answers queries of a run.

    Raises:
      InputError, ModelError, RunFolderError: it has no index, or its model is another one.
    """
    if not RunFolder(run).recipe.is_file():
        raise RunFolderError(RunFolder(run).no_run())
    recipe = read_recipe(RunFolder(run).recipe)
    if not isinstance(recipe, RetrieveRecipe):
        raise InputError(
            f"{run}: a run of task {recipe.task!r}, and search is for runs of retrieve."
        )
    if not (run / _INDEX / HEAD).is_file():
        raise RunFolderError(
            f"{run}: its index is not written yet; go on with `edge-train run --resume {run}`."
        )
    index = Index(run / _INDEX, TEXTS)
    model = open_encoder(find_folder(recipe.model, "")[0])
    engine = engine_of(recipe, model)
    _check_model(run, index, model, engine)
    tokenizer = open_tokenizer(model.path, model.vocabulary)
    length = recipe.length or model.positions
    encoder = open_engine(model, engine, threads or cores())
    return Searcher(index, Reader(tokenizer, length), encoder, model.pad)


def _check_model(run: Path, index: Index, model: EncoderFolder, engine: str) -> None:
    if (found := model.sha256(engine)) != index.encoder:
        raise RunFolderError(
            f"{run / _INDEX} was made with another model (sha256 {index.encoder[:8]}...) than "
            f"{model.path} ({found[:8]}...); put that model back, or run again."
        )


def in_words(found: Sequence[Shown], *, bold: bool) -> str:
    """Return hits as lines for people: title, score, where from, and the part that matched most.

    Args:
      bold: mark matching words as a terminal does; else they stand in brackets.
    """
    try:
        width = min(os.get_terminal_size().columns, _WIDTH)
    except OSError:
        width = _WIDTH
    marks = (_BOLD, _PLAIN) if bold else ("[", "]")
    lines = []
    for rank, one in enumerate(found, 1):
        head = one.title or one.name
        lines.append(f"{rank}. {head}   {one.score:.2f}")
        if one.title:
            lines.append(f"   {one.name}")
        part = _marked(one, *marks)
        lines += textwrap.wrap(part, width, initial_indent="   ", subsequent_indent="   ")
        lines.append("")
    return "\n".join(lines) + "\n" if lines else "nothing was found\n"


def _marked(one: Shown, before: str, behind: str) -> str:
    """Return the part of a passage with most matching words, these marked."""
    first = 0
    if len(one.text) > _SHOWN and one.matches:
        starts = [a for a, _ in one.matches]
        inside = [sum(a <= other < a + _SHOWN for other in starts) for a in starts]
        first = max(0, starts[inside.index(max(inside))] - _SHOWN // 8)
        first = one.text.rfind(" ", 0, first) + 1 if first else 0
    last = min(len(one.text), first + _SHOWN)
    pieces, at = ["..."] if first else [], first
    for a, b in one.matches:
        if first <= a and b <= last:
            pieces += [one.text[at:a], before, one.text[a:b], behind]
            at = b
    pieces.append(one.text[at:last])
    if last < len(one.text):
        pieces.append("...")
    return "".join(pieces)


def _word(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the whole word around a part of it.

    >>> _word("slipstream flow", 4, 6)
    (0, 10)
    """
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    return start, end
