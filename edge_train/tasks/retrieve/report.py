"""The section of a search's report: queries that it did not train on, before and after training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.recipe import read_toml
from edge_train.records.folder import RunFolder
from edge_train.report.html import render, section, table
from edge_train.report.section import Section
from edge_train.tasks.retrieve.audit.shown import shown_audit

Record = Mapping[str, Any]
_MEASURES = (
    ("ndcg_at_10", "nDCG@10"),
    ("mrr_at_10", "reciprocal rank"),
    ("recall_at_10", "recall@10"),
)
_WAYS = (("", "after training"), ("_before", "before"), ("_bm25", "by words (BM25)"))


def _numbers(summary: Record) -> str:
    metrics = summary["metrics"]
    rows = [
        (said, *(f"{metrics[name + end]:.3f}" for end, _ in _WAYS))
        for name, said in _MEASURES
        if all(name + end in metrics for end, _ in _WAYS)
    ]
    part, count = metrics.get("scored_on", "dev"), metrics.get("scored_queries", 0)
    names = (f"{count} {part} queries", *(said for _, said in _WAYS))
    return section("How well it finds", table(names, rows), bool(rows))


def _examples(summary: Record) -> str:
    examples = summary["metrics"].get("examples") or []
    body = render("searches.html", examples=examples)
    return section("Queries before and after", body, bool(examples))


def _using(run: Path, summary: Record) -> str:
    head = summary["outputs"].get("head")
    if head is None:
        return ""
    ways = [("edge-train", 'edge-train search . "what you look for"')]
    layers = sorted(path.name for path in (run / head).glob("*_Dense"))
    if layers:
        # PyLate puts tokens before texts and behind queries, which the head never saw.
        lines = (
            "import string",
            "from pylate import models",
            "from sentence_transformers.models import Transformer",
            "",
            f'encoder = Transformer("{_model_of(run)}")',
            f'layers = [models.Dense.load("{head}/" + name) for name in {layers}]',
            "model = models.ColBERT(",
            '    modules=[encoder, *layers], query_prefix="", document_prefix="",',
            "    do_query_expansion=False,",
            "    skiplist_words=[*string.punctuation, encoder.tokenizer.cls_token,",
            "                    encoder.tokenizer.sep_token],",
            ")",
        )
        ways.append(("PyLate", "\n".join(lines)))
    intro = "Index and head are in this folder; the encoder is the model's own."
    return section("Use it like this", render("loading.html", intro=intro, ways=ways), True)


def _model_of(run: Path) -> str:
    """Return where the encoder of a run is, as its recipe says."""
    try:
        return str(read_toml(RunFolder(run).recipe).get("model", "MODEL"))
    except InputError:  # a damaged recipe, of a run whose report is read all the same
        return "MODEL"


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    shown = tuple(name + end for name, _ in _MEASURES for end, _ in _WAYS)
    return (
        Section(
            name="search numbers",
            render=lambda run, summary, records: _numbers(summary),
            place="result",
            shows=shown,
        ),
        Section(
            name="searches",
            render=lambda run, summary, records: _examples(summary),
            place="result",
            shows=("examples",),
        ),
        Section(
            name="audit",
            render=lambda run, summary, records: shown_audit(run),
            place="result",
        ),
        Section(
            name="search use",
            render=lambda run, summary, records: _using(run, summary),
            place="result",
        ),
    )
