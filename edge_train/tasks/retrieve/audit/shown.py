"""The audit in the report of a search: how often a foreign document rises, as bars."""

from pathlib import Path

from markupsafe import Markup

from edge_train.report.html import render, section
from edge_train.tasks.auditing import read_audit

_DEFENCES = ("none", "perplexity filter", "near-duplicate filter", "score clipping")


def shown_audit(run: Path) -> Markup:
    """Return the section; empty where the run was not audited."""
    found = read_audit(run)
    if found is None:
        return Markup()
    rows = [
        {
            "words": row["way"],
            "shares": [min(max(float(row[name]), 0.0), 1.0) for name in _DEFENCES],
        }
        for row in found["rows"]
    ]
    intro = (
        f"Share of {found['queries']} own queries for which a foreign document is among the first "
        f"{found['first']}, without a defence and under each. A foreign document has "
        f"{found['words']} words of the own documents; searches had {found['forwards']} forward "
        "passes at most. What was found was not kept."
    )
    names = ["foreign document", *_DEFENCES]
    body = render("bars.html", intro=intro, names=names, rows=rows)
    cost = [{"words": "own judged queries", "shares": [float(found["cost"][n]) for n in _DEFENCES]}]
    intro = f"nDCG@10 (in hundredths) of {found['judged']} judged queries under each defence."
    body += render("bars.html", intro=intro, names=["", *_DEFENCES], rows=cost)
    return section("Foreign documents", body, bool(rows))
