"""Sections of the report of a small network: what every block learned."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edge_train.report.chart import Curve, Points, chart, running_median
from edge_train.report.section import Section

Record = Mapping[str, Any]


def block_curves(facts: Record, records: Sequence[Record]) -> str:
    """Return a learning curve per block; empty if the method has no local losses."""
    names = facts.get("blocks") or []
    curves = [Points() for _ in names]
    for record in records:
        for points, loss in zip(curves, record.get("block_losses") or (), strict=False):
            if loss is not None:
                points.append((record["step"] + 1, loss))
    charts = []
    for number, (name, points) in enumerate(zip(names, curves, strict=True), 1):
        svg = chart(
            f"Local loss of block {number} over steps",
            [Curve("each step", points, "faint"), Curve("median", running_median(points))],
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


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="layer by layer",
            render=lambda run, summary, records: block_curves(records[0]["facts"], records),
            place="curves",
        ),
    )
