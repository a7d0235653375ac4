"""Which class was taken for which, of every run whose scores hold it."""

from markupsafe import Markup

from edge_train.report.html import Record, render, section

_MOST_CLASSES = 30  # a larger table says nothing to the eye


def confusion_table(metrics: Record, facts: Record) -> Markup:
    """Return which class was taken for which, as shares of each row; empty if unknown."""
    counts, names = metrics.get("confusion"), metrics.get("class_names") or facts.get("labels")
    if not counts or not names or not len(counts) == len(names) <= _MOST_CLASSES:
        return Markup()
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = max(sum(row), 1)
        rows.append((name, [(count, f"{count / total:.2f}") for count in row]))
    part = str(metrics.get("scored_on", "test")).capitalize()
    body = render("confusion.html", part=part, names=names, rows=rows)
    return section("What is taken for what", body, True)
