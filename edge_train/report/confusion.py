"""Which class was taken for which, of every run whose scores hold it."""

from html import escape

from edge_train.report.html import Record

_MOST_CLASSES = 30  # a larger table says nothing to the eye


def confusion_table(metrics: Record, facts: Record) -> str:
    """Return which class was taken for which, as shares of each row; empty if unknown."""
    table, names = metrics.get("confusion"), metrics.get("class_names") or facts.get("labels")
    if not table or not names or not len(table) == len(names) <= _MOST_CLASSES:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    rows = []
    for name, counts in zip(names, table, strict=True):
        total = max(sum(counts), 1)
        cells = "".join(
            f'<td class="share" style="--share:{count / total:.2f}">{count or ""}</td>'
            for count in counts
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    words = (
        f'<p class="quiet">{escape(metrics.get("scored_on", "test").capitalize())} samples: a row '
        "is what they are, a column what the model took them for.</p>"
    )
    body = f'<table class="confusion"><tr>{head}</tr>{"".join(rows)}</table>'
    return (
        f'<section><h2>What is taken for what</h2>{words}<div class="wide">{body}</div></section>'
    )
