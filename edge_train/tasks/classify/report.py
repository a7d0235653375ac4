"""Sections of the report of a text classifier: how many texts of each label it knows."""

from collections.abc import Mapping, Sequence
from typing import Any

from edge_train.report.html import section, table
from edge_train.report.section import Section

_MOST_LABELS = 100  # a longer table says nothing to the eye


def _by_label(summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
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


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="label by label",
            render=lambda run, summary, records: _by_label(summary, records),
            place="curves",
            shows=("labels",),
        ),
    )
