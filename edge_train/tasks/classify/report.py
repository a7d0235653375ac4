"""Sections of the report of a text classifier: its worst mistakes, what each label reached."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train.report.html import render, section, table
from edge_train.report.mistakes import shown_mistakes
from edge_train.report.section import Section
from edge_train.tasks.prompt_shown import shown_prompt

_MOST_LABELS = 100  # a longer table says nothing to the eye
Record = Mapping[str, Any]
_WAYS = (
    ("edge-train", 'edge-train infer . "..."'),
    ("every engine", "what was found, a space, and your text: that is the text to classify"),
)


def _by_label(summary: Record, records: Sequence[Record]) -> str:
    """Return a row a label: texts scored, and how many of them were classified correctly."""
    counts, labels = summary["metrics"].get("confusion"), records[0]["facts"].get("labels")
    if not counts or not labels or not len(counts) == len(labels) <= _MOST_LABELS:
        return ""
    rows = []
    for number, (label, row) in enumerate(zip(labels, counts, strict=True)):
        total = sum(row)
        share = f"{100 * row[number] / total:.0f} %" if total else ""
        rows.append((str(label), str(total), str(row[number]), share))
    names = ("label", f"{summary['metrics'].get('scored_on', 'test')} texts", "correct", "")
    return section("Label by label", table(names, rows), True)


def _mistakes(run: Path, summary: Record) -> str:
    """Return the texts whose answer was most wrong, as the model read them."""
    metrics = summary["metrics"]
    part = metrics.get("scored_on", "test")
    numbers = "mean_squared_error" in metrics
    which = "number was furthest off" if numbers else "wrong answer was the most certain"
    intro = f"Of the {part} texts, those whose {which}."
    return shown_mistakes(metrics, intro, run)


def _loading(summary: Record, facts: Record) -> str:
    """Return the lines that load what was trained into transformers and peft."""
    outputs, ways = summary["outputs"], []
    call = 'classify({"text": "one text", "text_pair": "the other"})'
    if not facts.get("pairs"):
        call = 'classify("a text")'
    if facts.get("objective") == "regression":
        call = call.removesuffix(")") + ', function_to_apply="none")'
    if model := outputs.get("model"):
        lines = (
            "from transformers import pipeline",
            "",
            f'classify = pipeline("text-classification", "{model}")',
            f"print({call})",
        )
        ways.append(("transformers", "\n".join(lines)))
    if adapter := outputs.get("adapter"):
        ways.append(("peft, the adapter alone", _with_peft(adapter)))
    if difference := outputs.get("difference"):
        ways.append(("peft, what training changed", _with_peft(difference)))
    if ways:
        ways.append(("edge-train, to learn more", "edge-train run --from . --data MORE.csv"))
    intro = "The model is a folder with its tokenizer and its labels."
    body = render("loading.html", intro=intro, ways=ways)
    return section("Load it like this", body, bool(ways))


def _with_peft(folder: str) -> str:
    return (
        "from peft import AutoPeftModelForSequenceClassification\n\n"
        f'model = AutoPeftModelForSequenceClassification.from_pretrained("{folder}")'
    )


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="prompt",
            render=lambda run, summary, records: shown_prompt(summary, records[0]["facts"], _WAYS),
            place="top",
            shows=("prompt_start",),
        ),
        Section(
            name="worst mistakes",
            render=lambda run, summary, records: _mistakes(run, summary),
            place="result",
            shows=("mistakes",),
        ),
        Section(
            name="loading",
            render=lambda run, summary, records: _loading(summary, records[0]["facts"]),
            place="result",
        ),
        Section(
            name="label by label",
            render=lambda run, summary, records: _by_label(summary, records),
            place="curves",
            shows=("labels",),
        ),
    )
