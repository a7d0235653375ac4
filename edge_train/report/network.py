"""Sections of the report of a small network: what every block learned, which classes are mixed."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edge_train.report.chart import Line, Point, chart, running_median

Record = Mapping[str, Any]

_MOST_CLASSES = 30  # a larger table says nothing to the eye


def block_curves(facts: Record, records: Sequence[Record]) -> str:
    """Return a learning curve per block; empty if the method has no local losses."""
    names = facts.get("blocks") or []
    curves: list[list[Point]] = [[] for _ in names]
    for record in records:
        for points, loss in zip(curves, record.get("block_losses") or (), strict=False):
            if loss is not None:
                points.append((record["step"] + 1, loss))
    charts = []
    for number, (name, points) in enumerate(zip(names, curves, strict=True), 1):
        svg = chart(
            f"Local loss of block {number} over steps",
            [Line("each step", points, "faint"), Line("median", running_median(points))],
            "steps",
            lambda value: f"{value:,.0f}",
            lambda value: f"{value:.6g}",
        )
        if svg:
            charts.append(f"<h3>Block {number}: {escape(name)}</h3>{svg}")
    if not charts:
        return ""
    words = (
        '<p class="quiet">Each block learns alone, on a loss of its own; the last one on the '
        "cross entropy of the network's answer.</p>"
    )
    return f"<section><h2>Layer by layer</h2>{words}{''.join(charts)}</section>"


def confusion_table(metrics: Record) -> str:
    """Return which class was taken for which, as shares of each row; empty if unknown."""
    table, names = metrics.get("confusion"), metrics.get("class_names")
    if not table or not names or len(names) > _MOST_CLASSES:
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
        '<p class="quiet">Test samples: a row is what they are, a column what the network '
        "took them for.</p>"
    )
    body = f'<table class="confusion"><tr>{head}</tr>{"".join(rows)}</table>'
    return (
        f'<section><h2>What is taken for what</h2>{words}<div class="wide">{body}</div></section>'
    )
