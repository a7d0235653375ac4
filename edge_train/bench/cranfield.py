"""Cranfield as a folder of documents, queries and judgements, half of the queries held out."""

import json
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.rng import Key

_FILES = ("cran_docs.json", "cran_queries.json", "cran_qrels.json")
_HALVES = Key(0, 0)
_BEST = 5  # less the position of a judgement, 1 to 4, is its gain


def write_collection(source: Path, out: Path) -> Path:
    """Write corpus, queries and judgements as BEIR lays them out; return the folder.

    Half of the queries, drawn once, are `test`, all others `train`. A judgement's gain is 5 less
    its position: 4 for a complete answer, 1 for one of little interest.

    Args:
      source: has cran_docs.json, cran_queries.json and cran_qrels.json.

    Raises:
      InputError: it has not.
    """
    documents, queries, judged = (_read(source / name) for name in _FILES)
    (out / "qrels").mkdir(parents=True, exist_ok=True)
    rows = [{"_id": str(d["id"]), "title": d["title"], "text": d["body"]} for d in documents]
    _write(out / "corpus.jsonl", rows)
    asks = [{"_id": str(q["query number"]), "text": q["query"]} for q in queries]
    _write(out / "queries.jsonl", asks)
    order = _HALVES.generator("halves").permutation(len(asks))
    test = {asks[number]["_id"] for number in order[: (len(asks) + 1) // 2].tolist()}
    for part in ("train", "test"):
        lines = ["query-id\tcorpus-id\tscore\n"]
        for one in judged:
            if (str(one["query_num"]) in test) == (part == "test"):
                lines.append(f"{one['query_num']}\t{one['id']}\t{_BEST - one['position']}\n")
        (out / "qrels" / f"{part}.tsv").write_text("".join(lines))
    return out


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); name a folder with {', '.join(_FILES)}: --data DIR."
        ) from error


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
