"""Sections of the report of an autoencoder: clouds beside their reconstructions, and its use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edge_train.report.html import inside, picture, render, section
from edge_train.report.section import Section

Record = Mapping[str, Any]


def _loading(summary: Record) -> Markup:
    if "autoencoder" not in summary["outputs"]:
        return Markup()
    bytes_of = summary["metrics"].get("code_bytes")
    intro = (
        f"The autoencoder is in {summary['outputs']['autoencoder']}; a cloud is {bytes_of} bytes "
        "as a code."
    )
    ways = [
        ("how unusual a scan is", "edge-train score . SCAN.ply"),
        ("reconstructions and codes of scans", "edge-train score . SCANS --out rebuilt"),
    ]
    return section("Use it like this", render("loading.html", intro=intro, ways=ways), True)


def _rows(run: Path, drawn: Sequence[Record]) -> Markup:
    found = [(inside(run, one["picture"]), one) for one in drawn]
    pictures = [
        picture(path, f"{one['name']}, score {one['score']:.4g}") for path, one in found if path
    ]
    intro = "Left as it was read, right as it comes back; clouds that were never trained on."
    figures = render("figures.html", intro=intro, pictures=pictures)
    return section("Clouds and their reconstructions", figures, bool(pictures))


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="reconstructions",
            render=lambda run, summary, records: _rows(run, summary["metrics"].get("shown") or ()),
            place="result",
            shows=("shown",),
        ),
        Section(
            name="loading",
            render=lambda run, summary, records: _loading(summary),
            place="result",
        ),
    )
