"""The report as one calm page: no scripts, nothing loaded from elsewhere, light and dark.

Its parts stand in the order in which people ask: what came out of it, what it cost, where the file
is and how to load it; then the curves, the data, and folded away everything else.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath

from markupsafe import Markup

from edge_train.errors import MISSED
from edge_train.memory.shortage import is_shortage
from edge_train.report.confusion import confusion_table
from edge_train.report.curves import curves
from edge_train.report.html import Record, section, style, table, value_of, words_of
from edge_train.report.html import render as filled
from edge_train.report.numbers import numbers
from edge_train.report.section import PLACES, Section
from edge_train.units import format_seconds

_MOST_EVENTS = 100
_MOST_NOTICES = 4  # that are seen at once; the rest is one click away
_STATUS = {
    "done": ("good", "finished"),
    "interrupted": ("warn", "interrupted, can go on"),
    "stopped": ("warn", "stopped early, can go on"),
    "running": ("warn", "not finished: a running or broken-off run"),
    "over cap": ("bad", "failed: held more than its cap"),
}


def render(
    run: Path,
    summary: Record,
    records: Sequence[Record],
    title: str,
    sections: Sequence[Section],
    broken: Mapping[str, str],
) -> str:
    """Return the page of a run as HTML.

    Args:
      run: its folder; pictures and texts come from `samples/` in it.
      summary: what `report.summarize` returns.
      records: the journal, the first one of kind `start`.
      title: of the page.
      sections: of the task and of other packages, beside those of every run.
      broken: sections that could not be loaded, each with the reason.
    """
    facts = records[0]["facts"]
    added = dict.fromkeys(PLACES, Markup())
    hidden = {"notices", "confusion"}
    for one in sections:
        if html := _made(one.name, partial(one.render, run, summary, records)):
            added[one.place] += html
            hidden.update(one.shows)
    added["end"] += Markup().join(_not_made(name, why) for name, why in broken.items())
    check = records[0].get("slope_check")
    parts = [
        _made("Notices", lambda: _notices(summary)),
        added["top"],
        _made("Numbers", lambda: numbers(summary, records)),
        added["result"],
        _made("Curves", lambda: curves(summary, records)),
        added["curves"],
        _made("Confusion", lambda: confusion_table(summary["metrics"], facts)),
        added["data"],
        _made("Slope check", lambda: _slopes(check)),
        _made("Events", lambda: _events(records)),
        _made("Settings", lambda: _settings(summary, facts, hidden)),
        added["end"],
    ]
    mood, meaning = _STATUS.get(summary["status"], ("warn", ""))
    model = PurePath(str(facts.get("model") or "")).name  # the whole path is in the settings
    made = (facts.get("task"), summary["method"], model)
    return filled(
        "page.html",
        title=title,
        style=style(),
        made=[str(one) for one in (*made, summary["runtime"], summary["device"]) if one],
        status=summary["status"],
        mood=mood,
        meaning=meaning,
        parts=[part for part in parts if part],
        version=summary["versions"].get("edge-train", ""),
    )


def _made(name: str, make: Callable[[], object]) -> Markup:
    """Return a section, or a sentence in its place: what goes wrong in it stays there.

    Packages may do anything, and records whose checksum is right may still say anything.
    """
    try:
        html = make()
        if not isinstance(html, str):
            raise TypeError(f"it returned {type(html).__name__}, not HTML")
        return Markup(html)
    except Exception as error:
        if is_shortage(error):  # which the run answers, by going on in a smaller way
            raise
        return _not_made(name, f"{type(error).__name__}: {error}")


def _not_made(name: str, why: str) -> Markup:
    body = Markup('<p class="quiet">{}</p>').format(f"This section could not be made: {why}")
    return section(name, body, True)


def _folded(title: str, count: str, body: Markup) -> Markup:
    """Return a part of the page that opens on a click."""
    return filled("folded.html", title=title, count=count, body=body) if body else Markup()


def _notices(summary: Record) -> Markup:
    """Return what was said at the start: what was cut, left out or set aside, a line each."""
    lines = summary.get("notices")
    if not isinstance(lines, list) or not lines:
        return Markup()
    return filled("notices.html", lines=[str(line) for line in lines], most=_MOST_NOTICES)


def _slopes(check: Record | None) -> Markup:
    if not check:
        return Markup()
    rows = []
    for row in check["rows"]:
        chosen = "used" if row["epsilon"] == check["epsilon"] else ""
        agreement = row.get("agreement")
        cells = [f"{row['epsilon']:g}", "" if agreement is None else f"{agreement:.3f}"]
        rows.append((*cells, chosen))
    intro = Markup(
        '<p class="quiet">Before the first step the loss was measured along a few directions at '
        "several radii. Agreement near 1 means that the slope is signal, not rounding.</p>"
    )
    found = table(("radius", "agreement", ""), rows)
    return _folded("Slope check", "", intro + found) if rows else Markup()


def _events(records: Sequence[Record]) -> Markup:
    rows = []
    for record in records:
        step, text = record.get("step"), None
        if record["kind"] == "event" and "agreed" not in record:  # of a fleet: half a step
            text = str(record["text"])
        elif record["kind"] == "resume":
            text = "resumed"
            if record.get("changes"):
                changes = ", ".join(f"{k} {v}" for k, v in record["changes"].items())
                text += f" smaller ({changes})"
        elif record["kind"] == "end":
            text = f"ended: {record['status']}"
        elif record["kind"] == "extend":
            text = f"made longer: {record['steps']} steps in all"
        elif record["kind"] == "fit":
            by_noise = record.get("why") == "noise"
            what = "in all, since gradients are noise" if by_noise else "fit into the time"
            text = f"{record['steps']} steps {what}"
        elif record["kind"] == "step" and record.get("skipped") == MISSED:
            text = MISSED
        elif record["kind"] == "step" and record.get("skipped"):
            text = f"rolled back: {record['skipped']}"
        if text:
            rows.append((str(step), text))
    count = len(rows)
    if count > _MOST_EVENTS:
        more = ("", f"and {count - _MOST_EVENTS:,} more in journal.jsonl")
        rows = [*rows[:_MOST_EVENTS], more]
    return _folded("Events", f"{count:,}", table(("step", "what happened"), rows))


def _settings(summary: Record, facts: Record, hidden: Collection[str]) -> Markup:
    rows = [
        (words_of(k), value_of(k, v))
        for k, v in facts.items()
        if k != "versions" and k not in hidden
    ]
    counts = ("measured_peak_bytes", "measured_anon_bytes", "plan_peak_bytes")
    for name in (*counts, "weights_bytes", "weights_reread_bytes"):
        if summary[name] is not None:
            rows.append((words_of(name), value_of(name, summary[name])))
    if summary["weights_bytes"]:
        again = summary["weights_reread_bytes"] / summary["weights_bytes"]
        rows.append(("Weights read again from the file", f"{again:.1f} times"))
        if summary["weights_passes"]:
            rows.append(("Reading order of the weights", _passes(summary)))
    if summary["selection_seconds"] is not None:
        rows.append(("Choosing batches", format_seconds(summary["selection_seconds"])))
    if summary.get("joules") is not None:
        used = f"{summary['joules']:.3g} J by {summary['joules_from']}, other programs included"
        rows.append(("Energy", used))
    rows.append(("Times resumed", str(summary["resumed"])))
    metrics = {k: v for k, v in summary["metrics"].items() if k not in hidden}
    rows += [(words_of(k), value_of(k, v)) for k, v in metrics.items()]
    rows += [(f"Version of {name}", str(v)) for name, v in summary["versions"].items()]
    rows = [(name, value) for name, value in rows if value]
    return _folded("Settings", f"{len(rows)}", table(("setting", "value"), rows))


def _passes(summary: Record) -> str:
    """Return how a run went over the file of its weights.

    >>> _passes({"weights_order": "block by block", "weights_passes": 6, "weights_evaluations": 9})
    'block by block, 6 passes for 9 forward passes of one sample'
    """
    return (
        f"{summary['weights_order']}, {summary['weights_passes']} passes for "
        f"{summary['weights_evaluations']} forward passes of one sample"
    )
