"""A prompt that was learned, in the report: as it began, and as it was found."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from edge_train.report.html import render, section

_INTRO = "No weight changed. What was learned is words, which every app that runs the model takes."
_SOFT = (
    "No weight changed. What was learned is vectors, in prompt.safetensors, which began as these "
    "words; edge-train alone puts them in front."
)


def shown_prompt(
    summary: Mapping[str, Any], facts: Mapping[str, Any], ways: tuple[tuple[str, str], ...]
) -> Markup:
    """Return the section; empty where a run learned no prompt.

    Args:
      ways: what to type with it, a title and lines each.
    """
    start, found = facts.get("prompt_start"), summary["metrics"].get("prompt")
    words = [("it began as", str(start)), ("what was found", str(found))]
    shown = [] if start is None else words[: 1 if found is None else 2]
    body = render("loading.html", intro=_SOFT if found is None else _INTRO, ways=[*shown, *ways])
    return section("The prompt", body, bool(shown))
