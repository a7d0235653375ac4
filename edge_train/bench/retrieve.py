"""`edge-train bench retrieve`: late interaction on Cranfield, by kind of the head, and an index.

Documents and queries are encoded once and kept below `out`; a row that was measured is read and not
measured again. The kind is chosen inside the training half of the queries, on two folds of it; the
other half is looked at once, by linear and by the chosen kind, with each seed.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.arrays.projections import KINDS, start_values
from edge_train.arrays.types import Array
from edge_train.bench.cranfield import write_collection
from edge_train.errors import InputError
from edge_train.formats.tokenizer_files import open_tokenizer
from edge_train.optim.transforms import for_block
from edge_train.recipe import required
from edge_train.rng import Key
from edge_train.runtimes.numpy.late_interaction import LateInteraction
from edge_train.tasks.retrieve.bm25 import BM25, words_of
from edge_train.tasks.retrieve.corpus import START_FILE, TEXTS, directions, load_corpus
from edge_train.tasks.retrieve.documents import Columns, read_collection
from edge_train.tasks.retrieve.encoding import PER_CALL, open_engine
from edge_train.tasks.retrieve.job import INDEX_FOLDER, RetrieveJob
from edge_train.tasks.retrieve.model import open_model
from edge_train.tasks.retrieve.objective import FindPassage
from edge_train.tasks.retrieve.passages import Reader, padded, without_title
from edge_train.tasks.retrieve.questions import (
    Asked,
    asked_of_titles,
    most_right,
    questions_of,
)
from edge_train.tasks.retrieve.ranked import scores_of
from edge_train.tasks.retrieve.recipe import RetrieveRecipe
from edge_train.tasks.retrieve.scores import interval, ndcg, ranking

_FOLDS = 2
_RATES = (1e-3, 3e-3)
_STOP = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "do", "does", "for"),
        *("from", "has", "have", "how", "in", "is", "it", "its", "of", "on", "or", "that", "the"),
        *("their", "this", "to", "was", "were", "what", "which", "with"),
    )
)


def main(
    out: Path, seeds: int, *, model: str = "", data: str = "", limit: int | None = None
) -> str:
    """Return the tables.

    Args:
      model: the folder of all-MiniLM-L6-v2.
      data: the folder of Cranfield.
      limit: steps of a head; default: those of the task.

    Raises:
      InputError: one of them is not named, or cannot be used.
    """
    if not model or not data:
        raise InputError("bench retrieve needs --model MINILM and --data CRANFIELD.")
    out.mkdir(parents=True, exist_ok=True)
    one = _Cranfield(out, str(model), Path(data), limit)
    tried = [f"{kind} {rate:g}" for kind in KINDS for rate in _RATES]
    folds = _rows(out / "folds.json", tried, lambda name: one.on_folds(*_named(name)).tolist())
    means = {name: float(np.mean(folds[name])) for name in tried}
    best = {
        kind: max((name for name in tried if _named(name)[0] == kind), key=means.__getitem__)
        for kind in KINDS
    }
    chosen = max(KINDS, key=lambda kind: means[best[kind]])
    kinds = ("linear", chosen) if chosen != "linear" else ("linear",)
    keys = [f"{best[kind]} {seed}" for kind in kinds for seed in range(seeds)]

    def trained(key: str) -> list[float]:
        name, _, seed = key.rpartition(" ")
        found: list[float] = one.on_test(*_named(name), int(seed)).tolist()
        return found

    runs = _rows(out / "test.json", keys, trained)
    ways = one.untrained()
    for kind in kinds:
        some = [runs[f"{best[kind]} {seed}"] for seed in range(seeds)]
        ways[f"late interaction, {kind}"] = np.mean(some, axis=0)
    rows = []
    for name, values in ways.items():
        gaps = (_gap(ways[f"late interaction, {kind}"], values) for kind in kinds)
        rows.append((name, f"{values.mean():.3f}", *gaps))
    inside = [(kind, *(f"{means[f'{kind} {rate:g}']:.3f}" for rate in _RATES)) for kind in KINDS]
    rates = (f"nDCG@10 at rate {rate:g}" for rate in _RATES)
    first = bench.table(("kind, on two folds of the training half", *rates), inside)
    less = (f"{kind} less this, 95 % interval" for kind in kinds)
    head = (f"the held-out half, {seeds} seeds", "nDCG@10", *less)
    return f"{first}\n\n{bench.table(head, rows)}"


def _gap(ours: Array, others: Array) -> str:
    """Return a difference and its interval as people read it; empty of a way with itself."""
    if ours is others:
        return ""
    mean, low, high = interval((ours - others).tolist())
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _named(name: str) -> tuple[str, float]:
    kind, _, rate = name.partition(" ")
    return kind, float(rate)


class _Cranfield:
    """Encoded documents and queries, and what is asked of them."""

    def __init__(self, out: Path, model: str, data: Path, steps: int | None) -> None:
        folder = write_collection(data, out / "cranfield")
        recipe = RetrieveRecipe(model=model, data=str(folder), threads=1, steps=steps)
        self._out, self._job, place = out, RetrieveJob(recipe), out / "encoded"
        self._job.load()
        found = read_collection(folder, Columns())
        if not (place / START_FILE).is_file():
            place.mkdir(parents=True, exist_ok=True)
            self._job.prepare(place, print)
        self._corpus = corpus = load_corpus(place, place / INDEX_FOLDER)
        self._vectors = corpus.vectors()
        self._directions = directions(self._vectors)
        with (place / INDEX_FOLDER / TEXTS).open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        self._texts = [f"{row['title']} {row['text']}" for row in rows]
        self._words = BM25(self._texts)
        self._passages: dict[int, list[int]] = defaultdict(list)
        for number, owner in enumerate(corpus.owners.tolist()):
            self._passages[owner].append(number)
        owned = zip(corpus.owners.tolist(), corpus.titles.tolist(), strict=True)
        self._titles, _ = asked_of_titles(found.documents, {o: t for o, t in owned if t >= 0})
        train, test = found.queries["train"], found.queries["test"]
        first = len(corpus.starts) - 1 - len(train) - len(test)  # queries are the last texts
        every = [
            Asked(first + number, query.text, False, most_right(query))
            for number, query in enumerate((*train, *test))
        ]
        self._train, self._test = every[: len(train)], every[len(train) :]
        self._documents = [f"{d.title} {without_title(d)}" for d in found.documents]

    def on_folds(self, kind: str, rate: float) -> Array:
        """Return nDCG@10 of the training half's queries, each by a head that never saw it."""
        found = np.empty(len(self._train), np.float32)
        for fold in range(_FOLDS):
            rest = [one for number, one in enumerate(self._train) if number % _FOLDS != fold]
            found[fold::_FOLDS] = self._learned(kind, rate, rest, self._train[fold::_FOLDS])
        return found

    def on_test(self, kind: str, rate: float, seed: int) -> Array:
        """Return nDCG@10 of the held-out half's queries."""
        return self._learned(kind, rate, self._train, self._test, seed)

    def untrained(self) -> dict[str, Array]:
        """Return nDCG@10 of the held-out half's queries by every way that learns nothing."""
        runtime = self._runtime({"out": np.eye(self._corpus.width, dtype=np.float32)}, "linear")
        less = BM25(map(_fewer, self._texts))
        return {
            "BM25": self._by_words(self._words, lambda words: words),
            "BM25 without stop words and the s of plurals": self._by_words(less, _fewer),
            "mean pooling": self._judged(self._pooled(), self._test, range(len(self._documents))),
            "late interaction, untrained": self._by_head(runtime, self._test),
        }

    def _learned(
        self,
        kind: str,
        rate: float,
        given: Sequence[Asked],
        test: Sequence[Asked],
        seed: int = 0,
    ) -> Array:
        """Train a head by the task's defaults, all its steps; return nDCG@10 of other queries."""
        own = replace(self._job.recipe, projection=kind, learning_rate=rate, seed=seed)
        job = copy(self._job)
        job.recipe = own
        asked = questions_of(
            [*given, *self._titles], self._passages, self._corpus.owners, self._words
        )
        samples, negatives = required(own.samples), own.negatives
        task = FindPassage(asked, asked, self._corpus.passages, samples, negatives, samples)
        runtime = self._runtime(start_values(kind, self._directions, seed), kind)
        estimator, transform = job.method(1.0, {})
        blocks = runtime.parameters
        rules = {name: for_block(transform, name) for name in blocks}
        state = {name: rules[name].init(block) for name, block in blocks.items()}
        began = time.perf_counter()
        for step in range(required(own.steps)):
            key = Key(seed, step)

            def apply(name: str, gradient: Any, key: Key = key) -> None:
                update = rules[name].update(gradient, state[name], blocks.for_transform(name))
                blocks.subtract(name, update, key)

            estimator.estimate(runtime, task, task.batch(key), key, apply)
        print(
            f"{kind}, rate {rate:g}, seed {seed}: {time.perf_counter() - began:.0f} s",
            file=sys.stderr,
        )
        return self._by_head(runtime, test)

    def _runtime(self, start: dict[str, Array], kind: str) -> LateInteraction:
        corpus, recipe = self._corpus, self._job.recipe
        return LateInteraction(
            self._vectors,
            corpus.owners,
            corpus.titles,
            start,
            kind=kind,
            activation=recipe.activation,
            temperature=recipe.temperature,
        )

    def _by_head(self, runtime: LateInteraction, test: Sequence[Asked]) -> Array:
        numbers = np.array([one.text for one in test], np.int64)
        head = runtime.head(runtime.parameters)
        scores = scores_of(runtime, head, numbers, self._corpus.passages)
        return self._judged(scores, test, self._corpus.owners.tolist())

    def _by_words(self, words: BM25, changed: Callable[[str], str]) -> Array:
        scores = [words.scores(changed(one.words)) for one in self._test]
        return self._judged(np.stack(scores), self._test, self._corpus.owners.tolist())

    def _judged(self, scores: Array, test: Sequence[Asked], owners: Sequence[int]) -> Array:
        documents = np.array(owners, np.int32)
        rows = zip(scores, test, strict=True)
        return np.array([ndcg(ranking(row, documents), one.right) for row, one in rows], np.float32)

    def _pooled(self) -> Array:
        """Return the cosines of mean hidden values, (test queries, documents)."""
        kept = self._out / "pooled.npy"
        if not kept.is_file():
            texts = [*self._documents, *(one.words for one in self._test)]
            np.save(kept, _means(self._job.recipe, texts))
        values = np.load(kept, allow_pickle=False)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        found: Array = values[len(self._documents) :] @ values[: len(self._documents)].T
        return found


def _means(recipe: RetrieveRecipe, texts: Sequence[str]) -> Array:
    """Return the mean hidden value of each text, all its tokens in it, (texts, width)."""
    model = open_model(recipe)
    reader = Reader(open_tokenizer(model.path, model.vocabulary), required(recipe.length))
    encoder = open_engine(model, recipe.runtime, 1)
    rows = reader.read(texts)
    found = np.empty((len(rows), model.width), np.float32)
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
    for start in range(0, len(order), PER_CALL):
        few = order[start : start + PER_CALL]
        ids, mask = padded([rows[number] for number in few], model.pad)
        hidden = encoder.hidden(ids, mask) * mask[..., None]
        found[few] = hidden.sum(axis=1) / mask.sum(axis=1, keepdims=True)
    encoder.close()
    return found


def _fewer(text: str) -> str:
    """Return a text without the commonest words and the s of plurals (Harman's S stemmer)."""
    kept = (word for word in words_of(text) if word not in _STOP)
    return " ".join(_singular(word) for word in kept)


def _singular(word: str) -> str:
    """Return a word without the s of a plural.

    >>> [_singular(word) for word in ("theories", "wings", "mass", "thus")]
    ['theory', 'wing', 'mass', 'thus']
    """
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("us", "ss")) and len(word) > 2:
        return word[:-1]
    return word


def _rows(
    kept: Path, names: Sequence[str], measure: Callable[[str], list[float]]
) -> dict[str, list[float]]:
    """Return what was measured of each name; what a file has is not measured again."""
    found: dict[str, list[float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in names:
        if name not in found:
            found[name] = measure(name)
            kept.write_text(json.dumps(found))
    return found
