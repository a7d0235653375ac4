"""`edge-train audit RUN` of task retrieve: foreign documents that rise, and what catches them.

Nothing is added to the index of the run: a foreign document's tokens go through the index's own
quantiser and its scores stand beside those of the index's documents, in memory. Texts that were
found are neither written nor said.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.arrays.projections import project
from edge_train.arrays.types import Array
from edge_train.errors import InputError, ModelError
from edge_train.memory.footprint import PlanLine
from edge_train.rng import Key
from edge_train.tasks.auditing import VERSION, Audit, Parts
from edge_train.tasks.retrieve.audit.rising import WORDS, risen
from edge_train.tasks.retrieve.audit.vocabulary import Vocabulary, covering
from edge_train.tasks.retrieve.audit.words import WordModel, overlap
from edge_train.tasks.retrieve.bm25 import words_of
from edge_train.tasks.retrieve.corpus import Scored, load_corpus
from edge_train.tasks.retrieve.encoding import PER_CALL
from edge_train.tasks.retrieve.job import INDEX_FOLDER, RetrieveJob
from edge_train.tasks.retrieve.passages import padded
from edge_train.tasks.retrieve.recipe import RetrieveRecipe
from edge_train.tasks.retrieve.scores import ndcg, ranking
from edge_train.tasks.retrieve.search import Searcher, open_searcher

_MOST_WORDS = 2000  # that texts are made of: the commonest
_FLAGGED = 0.01  # share of the own passages that the perplexity filter may take for foreign
_ALIKE = 0.6  # overlap from which on a text repeats a query
_CLIP = 0.7  # no token of a query counts more than this
_TOGETHER = 64  # passages that are scored at once
_LOOKED_AT = 100  # passages that a near-duplicate filter looks at
_LIKELY = 200  # words that a search tries more often than others: the nearest to the query
_WORD_BYTES = 4_000  # of a word that is encoded, with room
SEARCHED, COPYING = "searched, without words of the query", "searched, with words of the query"
WAYS = (
    "random words",
    SEARCHED,
    COPYING,
    "the query before random words",
    "the query, repeated",
)
DEFENCES = ("none", "perplexity filter", "near-duplicate filter", "score clipping")


def audit(one: Audit) -> tuple[dict[str, Any], str]:
    """Return rates, and a line for people.

    Raises:
      InputError, ModelError, RunFolderError: the run, its index or its model cannot be used.
    """
    assert isinstance(one.recipe, RetrieveRecipe)
    corpus = load_corpus(one.run, one.run / INDEX_FOLDER)
    scored, passages = corpus.scored, corpus.passages
    if not scored.words:
        raise InputError(
            f"{one.run}: it has no judged queries that could be audited; train it with queries or "
            "titles."
        )
    queries = _spread(scored, one.options.queries)
    footprint = RetrieveJob(one.recipe).footprint()
    [prepare] = [lines for name, lines in footprint.known.items() if name == "prepare"]
    one.plan(
        footprint,
        (
            *prepare,
            PlanLine("scores", 20_000_000 + 8 * len(scored.words) * passages),
            PlanLine("words", _MOST_WORDS * _WORD_BYTES),
        ),
    )
    link = one.options.link
    if link is None:
        searcher = open_searcher(one.run, one.options.threads)
    else:
        with link.watch.loading():
            searcher = open_searcher(one.run, one.options.threads)
    try:
        numbers = _numbers(one, searcher, scored, queries)
    finally:
        searcher.encoder.close()
    found = {row["way"]: row for row in numbers["rows"]}
    line = (
        f"of {len(queries)} queries, a foreign document of {WORDS} words entered the first "
        f"{one.options.count} for {100 * found[SEARCHED]['none']:.0f} % without words of the query "
        f"(searched with {one.options.forwards} forward passes), for "
        f"{100 * found[COPYING]['none']:.0f} % with them, for "
        f"{100 * found['random words']['none']:.0f} % with random words"
    )
    return numbers, line


def _numbers(
    one: Audit, searcher: Searcher, scored: Scored, queries: Sequence[int]
) -> dict[str, Any]:
    index, count = searcher.index, one.options.count
    documents = int(index.owners.max()) + 1
    if documents < 2:
        raise InputError(
            f"{one.run}: its index holds one document, so nothing can rise above another; audit a "
            "search over two at least."
        )
    count = min(count, documents)
    texts = [index.text(number).text for number in range(index.passages)]
    words = [w for w, _ in Counter(w for t in texts for w in words_of(t)).most_common(_MOST_WORDS)]
    oddness, limit, model = _oddness(texts)
    odd = np.array(oddness) > limit
    guard = one.guard()
    key = (VERSION, index.encoder, texts, queries, one.options.forwards, count, one.recipe.seed)
    with Parts(one.run, key) as parts:
        vectors = [searcher.vectors(query) for query in scored.words]
        scores = _all_scores(one, searcher, vectors)
        guard.check(0)
        cost = parts.part("cost", lambda: _cost(searcher, scored, texts, odd, scores))
        one.say(f"encoding {len(words)} words of the documents")
        known = Vocabulary.encoded(words, lambda some: tokens_of(searcher, some))
        rows = []
        for done, number in enumerate(queries, 1):
            query = scored.words[number]
            name = f"query {number}"
            if not parts.of(name):
                enough = [
                    float(np.sort(_by_document(searcher, values[number]))[-count])
                    for values in scores
                ]
                work = _Query(searcher, query, vectors[number], *enough)
                parts.keep(name, work.audited(one, known, model, limit, number))
                guard.check(done)
                one.say(f"{done} of {len(queries)} queries")
            rows.append(parts.of(name)[0])
    table = []
    for place, way in enumerate(WAYS):
        # none: it rises; each defence: it rises still
        rates = {name: _mean(row[place][name] for row in rows) for name in DEFENCES}
        table.append({"way": way, **rates})
    return {
        "queries": len(queries),
        "first": count,
        "forwards": one.options.forwards,
        "spent": {
            way: float(np.mean([row[len(WAYS)][way] for row in rows]))
            for way in (SEARCHED, COPYING)
        },
        "encoded_words": len(words),
        "words": WORDS,
        "flagged": float(odd.mean()),
        "rows": table,
        "cost": cost,
        "judged": len(scored.words),
    }


@dataclass
class _Query:
    """One query against foreign documents.

    Attributes:
      enough, enough_clipped: scores of the last of the first documents, plain and clipped.
    """

    searcher: Searcher
    query: str
    vectors: Array
    enough: float
    enough_clipped: float

    def audited(
        self, one: Audit, known: Vocabulary, model: WordModel, limit: float, number: int
    ) -> list[Any]:
        """Return for each way which defences still let it rise, and what the searches spent."""
        own = set(words_of(self.query))
        others = np.array([word not in own for word in known.words])
        key, worth = Key(one.recipe.seed, number), known.worth(self.vectors)
        # every word of the query is tried, whether documents have it often or not
        asked = [word for word in known.words if word in own]
        found = {}
        for way, some in ((SEARCHED, np.flatnonzero(others)), (COPYING, np.arange(len(others)))):
            words = [known.words[place] for place in some.tolist()]
            chosen = covering(worth[some], WORDS)
            nearest = np.argsort(-worth[some].sum(axis=1))[:_LIKELY].tolist()
            likely = [words[place] for place in nearest] + (asked if way == COPYING else [])
            start = [words[place] for place in chosen]
            forwards = one.options.forwards
            found[way] = risen(self._scores, words, self.enough, forwards, key, start, likely)
        draw = key.generator("random words of a foreign document")
        drawn = draw.choice(np.flatnonzero(others), WORDS).tolist()
        random = " ".join(known.words[place] for place in drawn)
        before = f"{self.query} {random}"
        texts = (random, *(found[way].text for way in found), before, self.query)
        ways: list[Any] = [self._passes(text, model, limit) for text in texts]
        return [*ways, {way: one.forwards for way, one in found.items()}]

    def _passes(self, text: str, model: WordModel, limit: float) -> dict[str, bool]:
        tokens = tokens_of(self.searcher, [text])[0]
        rises = float(_best(self.vectors, tokens, None).sum()) > self.enough
        clipped = float(_best(self.vectors, tokens, _CLIP).sum()) > self.enough_clipped
        return {
            "none": rises,
            "perplexity filter": rises and model.oddness(text) <= limit,
            "near-duplicate filter": rises and overlap(text, self.query) < _ALIKE,
            "score clipping": rises and clipped,
        }

    def _scores(self, texts: Sequence[str]) -> Array:
        found = [_best(self.vectors, one, None).sum() for one in tokens_of(self.searcher, texts)]
        return np.array(found, np.float32)


def tokens_of(searcher: Searcher, texts: Sequence[str]) -> list[Array]:
    """Return the tokens of texts as the index would keep them, (tokens, width) each.

    Raises:
      ModelError: they are not finite.
    """
    found = []
    for start in range(0, len(texts), PER_CALL):
        rows = searcher.reader.read(list(texts[start : start + PER_CALL]))
        ids, mask = padded(rows, searcher.pad)
        hidden = searcher.encoder.hidden(ids, mask)
        for place, row in enumerate(rows):
            values = project(searcher.index.head, hidden[place, row.kept or [0]])
            values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
            found.append(searcher.index.as_kept(values))
    if not all(np.isfinite(one).all() for one in found):
        raise ModelError("the encoder gives numbers that are not finite; it is damaged.")
    return found


def _best(query: Array, tokens: Array, clip: float | None) -> Array:
    """Return the best product of each token of a query, cut at `clip`."""
    best: Array = (query @ tokens.T).max(axis=1)
    return best if clip is None else np.minimum(best, np.float32(clip))


def _all_scores(one: Audit, searcher: Searcher, queries: Sequence[Array]) -> tuple[Array, Array]:
    """Return the score of every passage for every query, as it is and clipped.

    Memory: both, (queries, passages) each, and the products of a few passages' tokens.
    """
    index = searcher.index
    plain = np.empty((len(queries), index.passages), np.float32)
    clipped = np.empty_like(plain)
    every = max(index.passages // 5, 1)
    for start in range(0, index.passages, _TOGETHER):
        some = np.arange(start, min(start + _TOGETHER, index.passages))
        tokens, starts = index.tokens(some)
        for number, query in enumerate(queries):
            best = np.maximum.reduceat(query @ tokens.T, starts[:-1], axis=1)
            plain[number, some] = best.sum(axis=0)
            clipped[number, some] = np.minimum(best, np.float32(_CLIP)).sum(axis=0)
        if some[-1] // every > start // every:
            one.say(f"{some[-1] + 1} of {index.passages} passages are scored")
    return plain, clipped


def _by_document(searcher: Searcher, scores: Array) -> Array:
    owners = searcher.index.owners
    found = np.full(int(owners.max()) + 1, -np.inf, np.float32)
    np.maximum.at(found, owners, scores)
    return found


def _cost(
    searcher: Searcher,
    scored: Scored,
    texts: Sequence[str],
    odd: NDArray[np.bool_],
    scores: tuple[Array, Array],
) -> dict[str, float]:
    """Return nDCG@10 of all judged queries under each defence, with nothing foreign there."""
    found: dict[str, list[float]] = {name: [] for name in DEFENCES}
    rows = zip(scored.words, scored.right, *scores, strict=True)
    for query, right, plain, clipped in rows:
        repeats = np.zeros(len(plain), np.bool_)
        for number in np.argsort(-plain)[:_LOOKED_AT].tolist():
            repeats[number] = overlap(texts[number], query) >= _ALIKE
        ways = {
            "none": plain,
            "perplexity filter": np.where(odd, -np.inf, plain),
            "near-duplicate filter": np.where(repeats, -np.inf, plain),
            "score clipping": clipped,
        }
        for name, values in ways.items():
            found[name].append(ndcg(ranking(values, searcher.index.owners), right))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _oddness(texts: Sequence[str]) -> tuple[list[float], float, WordModel]:
    """Return how odd each own passage is to a model of the other half, a limit, and a model.

    Foreign texts are judged by the model of one half, as own ones are: the limit is of such models.
    """
    halves = [WordModel(texts[1::2]), WordModel(texts[::2])]
    found = [halves[number % 2].oddness(text) for number, text in enumerate(texts)]
    return found, float(np.quantile(found, 1 - _FLAGGED)), halves[1]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _spread(scored: Scored, most: int) -> list[int]:
    count = len(scored.words)
    places = np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)
    found: list[int] = np.unique(places).tolist()
    return found
