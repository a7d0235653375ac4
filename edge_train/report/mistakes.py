"""The worst mistakes of a classifier, as a section of the page."""

from pathlib import Path

from markupsafe import Markup

from edge_train.report.html import Record, inside, picture, render, section


def shown_mistakes(metrics: Record, intro: str, run: Path) -> Markup:
    """Return what `metrics["mistakes"]` holds; empty without any.

    Args:
      intro: which samples they are, in a sentence.
      run: the folder that pictures lie in.
    """
    shown = []
    for one in metrics.get("mistakes") or ():
        path, name = inside(run, one.get("picture")), f"sample {one['row'] + 1:,}"
        shown.append(
            {
                "picture": picture(path, name) if path else None,
                "name": name,
                "text": one.get("text"),
                "label": one["label"],
                "found": one["found"],
                "sure": _certainty(one.get("probability")),
            }
        )
    body = render("mistakes.html", intro=intro, mistakes=shown)
    return section("The worst mistakes", body, bool(shown))


def _certainty(probability: float | None) -> str:
    """Return how certain a wrong answer was; empty for a number, which has no probability."""
    return "" if probability is None else f" with {100 * probability:.0f} % certainty"
