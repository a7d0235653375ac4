"""Sections of the report of a surface: pictures of cloud and mesh, and what the files are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edge_train.report.html import inside, picture, render, section
from edge_train.report.section import Section

Record = Mapping[str, Any]
_READ = """\
import numpy as np
from edge_train.tasks.surface.model_file import load_model

model = load_model("field.safetensors")
points = model.frame.inward(np.array([[0.0, 0.0, 0.0]]))  # in the units of the cloud
print(model.frame.radius * model.field.distance(points))"""


def _seen(run: Path, summary: Record) -> Markup:
    path = inside(run, summary["metrics"].get("picture"))
    words = "The cloud as it was read, points on the mesh, and the denser cloud."
    pictures = [picture(path, words)] if path is not None else []
    figures = render("figures.html", intro="", pictures=pictures)
    return section("The surface", figures, bool(pictures))


def _loading(summary: Record) -> Markup:
    outputs = summary["outputs"]
    if "field" not in outputs:
        return Markup()
    kinds = {"mesh": "the mesh", "dense": "more points, with normals", "normals": "normals"}
    named = [f"{words} in {outputs[kind]}" for kind, words in kinds.items() if kind in outputs]
    intro = f"The field is in {outputs['field']}; {', '.join(named) or 'nothing was drawn of it'}."
    return section(
        "Use it like this",
        render("loading.html", intro=intro, ways=[("distances from Python", _READ)]),
        True,
    )


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="surface",
            render=lambda run, summary, records: _seen(run, summary),
            place="result",
            shows=("picture",),
        ),
        Section(
            name="loading",
            render=lambda run, summary, records: _loading(summary),
            place="result",
        ),
    )
