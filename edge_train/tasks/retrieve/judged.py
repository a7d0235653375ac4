"""What a run is judged by: rankings of held-out queries, before and after, and by words."""

from pathlib import Path
from typing import Any

import numpy as np

from edge_train.arrays.projections import Folded
from edge_train.formats.json_text import read_text
from edge_train.runtimes.numpy.late_interaction import LateInteraction
from edge_train.tasks.retrieve.corpus import Corpus
from edge_train.tasks.retrieve.ranked import scores_of
from edge_train.tasks.retrieve.scores import ndcg, ranking, recall, reciprocal_rank

_EXAMPLES = 8
_SHOWN = 3  # hits of an example


def judged(
    corpus: Corpus, runtime: LateInteraction, before: Folded, after: Folded, texts: Path
) -> dict[str, Any]:
    """Return the scores of the queries that are held out, and examples of them.

    Args:
      texts: the file of passages.

    Memory: a score for every passage and query, and what `scores_of` holds.
    """
    scored = corpus.scored
    ranked: dict[str, list[list[int]]] = {"bm25": [list(one) for one in scored.by_words]}
    best: dict[str, list[dict[int, int]]] = {}
    for name, head in (("before", before), ("after", after)):
        scores = scores_of(runtime, head, scored.query, corpus.passages, bare=scored.bare)
        ranked[name] = [ranking(row, corpus.owners) for row in scores]
        best[name] = [
            {d: _best_passage(row, corpus, d) for d in some[:_SHOWN]}
            for row, some in zip(scores, ranked[name], strict=True)
        ]
    found: dict[str, Any] = {"scored_on": scored.part, "scored_queries": len(scored.words)}
    measures = {"ndcg_at_10": ndcg, "mrr_at_10": reciprocal_rank, "recall_at_10": recall}
    for measure, function in measures.items():
        for name, end in (("after", ""), ("before", "_before"), ("bm25", "_bm25")):
            values = [function(r, w) for r, w in zip(ranked[name], scored.right, strict=True)]
            found[f"{measure}{end}"] = float(np.mean(values)) if values else 0.0
    found["examples"] = _examples(corpus, ranked, best, texts)
    return found


def _best_passage(row: Any, corpus: Corpus, document: int) -> int:
    first, last = np.searchsorted(corpus.owners, [document, document + 1])
    return int(first + row[first:last].argmax())


def _examples(
    corpus: Corpus,
    ranked: dict[str, list[list[int]]],
    best: dict[str, list[dict[int, int]]],
    texts: Path,
) -> list[dict[str, Any]]:
    """Return the queries whose ranking changed most, as many better as worse where there are."""
    scored = corpus.scored
    change = np.array(
        [
            ndcg(after, right) - ndcg(before, right)
            for after, before, right in zip(
                ranked["after"], ranked["before"], scored.right, strict=True
            )
        ]
    )
    order = np.argsort(-change, kind="stable")
    half = _EXAMPLES // 2
    chosen = [*order[:half], *order[max(half, len(order) - half) :]]
    found = []
    with texts.open("rb") as file:
        for number in chosen:
            right = scored.right[number]
            row: dict[str, Any] = {"query": scored.words[number], "change": float(change[number])}
            for name in ("before", "after"):
                row[name] = []
                for document, passage in best[name][number].items():
                    file.seek(int(corpus.lines[passage]))
                    text = read_text(file.readline())
                    row[name].append(
                        {
                            "name": text["name"],
                            "title": text["title"],
                            "text": text["text"][:240],
                            "right": document in right,
                        }
                    )
            found.append(row)
    return found
