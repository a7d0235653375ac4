"""Sections of the report of an image classifier: use, mistakes, nearest pictures, confusions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edge_train.report.html import inside, picture, render, section
from edge_train.report.mistakes import shown_mistakes
from edge_train.report.section import Section
from edge_train.tasks.images.audit.shown import shown_audit

Record = Mapping[str, Any]


def _loading(summary: Record) -> Markup:
    outputs = summary["outputs"]
    if "classifier" not in outputs:
        return Markup()
    intro = (
        f"The classifier is in {outputs['classifier']}: the head, what makes features comparable, "
        "and what known pictures look like. It needs the backbone that it was trained on."
    )
    ways = [
        ("a picture's class, or unknown", "edge-train infer . photo.jpg"),
        ("edge-train, to learn more", "edge-train run --from . --data MORE"),
    ]
    return section("Use it like this", render("loading.html", intro=intro, ways=ways), True)


def _strips(run: Path, strips: Sequence[Record], title: str, intro: str) -> Markup:
    """Return rows of pictures, a name before each."""
    photos = []
    for strip in strips:
        for number, name in enumerate(strip["pictures"], 1):
            path = inside(run, name)
            words = f"{strip['name']}, {number}"
            if path is not None:
                photos.append({"picture": picture(path, words), "caption": None, "note": None})
    return section(title, render("photos.html", intro=intro, photos=photos), bool(photos))


def sections() -> tuple[Section, ...]:
    """Return the sections of a run of this task."""
    return (
        Section(
            name="worst mistakes",
            render=lambda run, summary, records: shown_mistakes(
                summary["metrics"],
                f"Of the {summary['metrics'].get('scored_on')} pictures, those whose wrong answer "
                "was the most certain.",
                run,
            ),
            place="result",
            shows=("mistakes",),
        ),
        Section(
            name="audit",
            render=lambda run, summary, records: shown_audit(run),
            place="result",
        ),
        Section(
            name="loading",
            render=lambda run, summary, records: _loading(summary),
            place="result",
        ),
        Section(
            name="nearest pictures",
            render=lambda run, summary, records: _strips(
                run,
                summary["metrics"].get("nearest") or (),
                "What stands for each class",
                "The pictures with the highest number for each class: nearest to its prototype.",
            ),
            place="data",
            shows=("nearest",),
        ),
        Section(
            name="features of the bank",
            render=lambda run, summary, records: _strips(
                run,
                summary["metrics"].get("features") or (),
                "What the learned features see",
                "The pictures that have the most of each feature of the bank; the first twelve.",
            ),
            place="data",
            shows=("features",),
        ),
    )
