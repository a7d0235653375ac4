"""Sections of the report of a small network: mistakes, how to use it, what every block learned."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edge_train.report.chart import Points, chart
from edge_train.report.curves import smoothed
from edge_train.report.html import render, section
from edge_train.report.mistakes import shown_mistakes
from edge_train.report.section import Section

Record = Mapping[str, Any]
_WITH_ONNX = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("network.onnx")
samples = np.load("samples.npy").astype(np.float32)  # numbers as they stood in the data
print(session.run(None, {"input": samples})[0].argmax(axis=1))"""


def block_curves(facts: Record, records: Sequence[Record]) -> Markup:
    """Return a learning curve per block; empty if the method has no local losses."""
    names = facts.get("blocks") or []
    curves = [Points() for _ in names]
    for record in records:
        for points, loss in zip(curves, record.get("block_losses") or (), strict=False):
            if loss is not None:
                points.append((record["step"] + 1, loss))
    charts = Markup().join(
        chart(
            f"Block {number}: {name}",
            smoothed(points),
            "steps",
            lambda value: f"{value:,.0f}",
            lambda value: f"{value:.6g}",
        )
        for number, (name, points) in enumerate(zip(names, curves, strict=True), 1)
    )
    words = Markup(
        '<p class="quiet">Each block learns alone, on a loss of its own; the last one on the '
        "cross entropy of the network's answer.</p>"
    )
    return section("Layer by layer", words + charts, bool(charts))


def _cell(score: float | None) -> tuple[str, str]:
    """Return a score in percent, and the share of its color: steep, so that few points show."""
    if score is None:
        return "not measured", "0"
    return f"{100 * score:.1f}", f"{score**3:.2f}"


def task_matrix(tasks: Record) -> Markup:
    """Return the accuracy of every task (column) after every task (row); empty if unknown."""
    names, scores = tasks.get("names") or [], tasks.get("scores") or []
    head = ("after", *(f"{number}: {name}" for number, name in enumerate(names, 1)))
    rows = [
        (head[number], [*map(_cell, row), *[("", "0")] * (len(names) - len(row))])
        for number, row in enumerate(scores, 1)
    ]
    among_all = [*map(_cell, tasks.get("among_all_classes") or [])]
    rows.append(("now, among all classes", among_all))
    words = [
        "Accuracy in percent on test samples that the run keeps to measure by, each task among its "
        "own classes. A row is what was learned last, a column what is asked; a column that grows "
        "pale downwards is a task that is forgotten."
    ]
    for key, what in (("backward_transfer", "Backward transfer"), ("forgetting", "Forgetting")):
        if key in tasks:
            words.append(f"{what}: {100 * tasks[key]:+.2f} points.")
    body = render("matrix.html", words=" ".join(words), names=head, rows=rows)
    return section("Tasks one after the other", body, bool(scores))


def _loading(summary: Record, facts: Record) -> Markup:
    """Return what to type to use the network, here and with ONNX Runtime."""
    outputs, ways = summary["outputs"], list[tuple[str, str]]()
    if file := outputs.get("network"):
        intro = f"The network is in {file}, with its classes and what inputs are standardized with."
        blocks = len(facts.get("blocks") or ())
        export = (
            f"edge-train export {shlex.quote(file)} network.onnx --quant none --blocks {blocks}"
        )
        ways.append(("a file for ONNX Runtime (with the desk installation)", export))
        ways.append(("ONNX Runtime", _WITH_ONNX))
        ways.append(("edge-train, to learn another task", "edge-train run --next . --data NEW"))
        ways.append(("edge-train, to learn more", "edge-train run --from . --data MORE"))
    elif file := outputs.get("adapter"):
        intro = f"What was learned is in {file}; it reads what its backbone makes of a sample."
        ways.append(("edge-train, to learn more", "edge-train run --from . --data MORE"))
    else:
        intro = ""
    return section("Use it like this", render("loading.html", intro=intro, ways=ways), bool(ways))


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="tasks",
            render=lambda run, summary, records: task_matrix(summary["metrics"].get("tasks") or {}),
            place="result",
            shows=("tasks",),
        ),
        Section(
            name="worst mistakes",
            render=lambda run, summary, records: shown_mistakes(
                summary["metrics"],
                "Of the test samples, those whose wrong answer was the most certain.",
                run,
            ),
            place="result",
            shows=("mistakes",),
        ),
        Section(
            name="loading",
            render=lambda run, summary, records: _loading(summary, records[0]["facts"]),
            place="result",
        ),
        Section(
            name="layer by layer",
            render=lambda run, summary, records: block_curves(records[0]["facts"], records),
            place="curves",
        ),
    )
