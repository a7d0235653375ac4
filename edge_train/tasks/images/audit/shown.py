"""The audit in the report of an image classifier: accuracy under each patch, as bars."""

from pathlib import Path

from markupsafe import Markup

from edge_train.report.html import render, section
from edge_train.tasks.auditing import read_audit

_RULES = ("one view", "mean of three", "median of three")


def shown_audit(run: Path) -> Markup:
    """Return the section; empty where the run was not audited."""
    found = read_audit(run)
    if found is None:
        return Markup()
    rows = [
        {
            "words": f"{row['head']}, {row['patch']}",
            "shares": [min(max(float(row[rule]), 0.0), 1.0) for rule in _RULES],
        }
        for row in found["rows"]
    ]
    intro = (
        f"Accuracy on {found['samples']} samples of {found['photos']} {found['part']} pictures, "
        f"with a patch on {100 * found['area']:.0f} % of each. A fitted patch was made for these "
        f"pictures with {found['forwards']} forward passes ({found['slopes']}); it was not kept."
    )
    body = render("bars.html", intro=intro, names=["head, patch", *_RULES], rows=rows)
    return section("Under a patch", body, bool(rows))
