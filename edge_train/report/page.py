"""The report as one calm page: no scripts, nothing loaded from elsewhere, light and dark."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

from edge_train.memory.shortage import is_shortage
from edge_train.report.confusion import confusion_table
from edge_train.report.curves import curves
from edge_train.report.html import Record, section, table, tile, value_of, words_of
from edge_train.report.section import PLACES, Section
from edge_train.units import format_bytes, format_seconds

_MOST_EVENTS = 100
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
      run: its folder; pictures come from `samples/` in it.
      summary: what `report.summarize` returns.
      records: the journal, the first one of kind `start`.
      title: of the page.
      sections: of the task and of other packages, beside those of every run.
      broken: sections that could not be loaded, each with the reason.
    """
    facts = records[0]["facts"]
    added = dict.fromkeys(PLACES, "")
    hidden = {"notices"}
    for one in sections:
        if html := _made(one.name, partial(one.render, run, summary, records)):
            added[one.place] += html
            hidden.update(one.shows)
    added["end"] += "".join(_not_made(name, why) for name, why in broken.items())
    check = records[0].get("slope_check")
    parts = [
        *(_made("Numbers", lambda: _numbers(summary, _planned(records)))),
        _made("Notices", lambda: _notices(summary)),
        added["top"],
        *(_made("Curves", lambda: curves(summary, records)), added["curves"]),
        *(_made("Confusion", lambda: confusion_table(summary["metrics"], facts)), added["data"]),
        _made("Slope check", lambda: _slopes(check)),
        _made("Events", lambda: _events(records)),
        _made("Settings", lambda: _settings(summary, facts, hidden)),
        added["end"],
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - edge-train</title><style>{_style()}</style></head><body><main>"
        f"{_header(title, summary, facts)}{''.join(parts)}"
        f"<footer>edge-train {escape(str(summary['versions'].get('edge-train', '')))} made this "
        "page from the run's journal. <code>edge-train report</code> makes it again.</footer>"
        "</main></body></html>\n"
    )


def _made(name: str, make: Callable[[], object]) -> str:
    """Return a section, or a sentence in its place: what goes wrong in it stays there.

    Packages may do anything, and records whose checksum is right may still say anything.
    """
    try:
        html = make()
        if not isinstance(html, str):
            raise TypeError(f"it returned {type(html).__name__}, not HTML")
        return html
    except Exception as error:
        if is_shortage(error):  # which the run answers, by going on in a smaller way
            raise
        return _not_made(name, f"{type(error).__name__}: {error}")


def _not_made(name: str, why: str) -> str:
    sentence = f"This section could not be made: {why}"
    return section(name, f'<p class="quiet">{escape(sentence)}</p>', True)


def _style() -> str:
    return Path(__file__).with_name("style.css").read_text("utf-8")


def _header(title: str, summary: Record, facts: Record) -> str:
    style, words = _STATUS.get(summary["status"], ("warn", ""))
    made = [facts.get("task"), summary["method"], facts.get("model"), summary["runtime"]]
    line = " &middot; ".join(escape(str(part)) for part in [*made, summary["device"]] if part)
    words = f" {escape(words)}" if words else ""
    return (
        f'<header><h1>{escape(title)}</h1><p class="quiet">{line}</p>'
        f'<p class="status {style}"><b>{escape(summary["status"])}</b>{words}</p></header>'
    )


def _planned(records: Sequence[Record]) -> int | None:
    """Return how many steps the run is to have."""
    longer = (record["steps"] for record in reversed(records) if record["kind"] == "extend")
    planned: int | None = next(longer, records[0]["facts"].get("steps_planned"))
    return planned


def _numbers(summary: Record, planned: int | None) -> str:
    peak, cap = summary["measured_peak_bytes"], summary["cap_bytes"]
    tiles = []
    if peak is not None:
        bar, under = "", "no cap was set"
        if cap:
            share = min(peak / cap, 1.0)
            style = "bad" if peak > cap else "good"
            bar = f'<div class="bar {style}"><i style="width:{100 * share:.1f}%"></i></div>'
            under = f"{100 * peak / cap:.0f}% of the cap, {format_bytes(cap)}"
        tiles.append(tile("Peak memory", format_bytes(peak), under, bar))
    losses = summary["eval"]
    if losses["best"] is not None and losses["first"]:
        change = 100 * (losses["best"] / losses["first"] - 1)
        under = f"{change:+.1f}% from {losses['first']:.4f}, best after {losses['best_step']} steps"
        tiles.append(tile("Evaluation loss", f"{losses['best']:.4f}", under))
    pace = summary["seconds_per_step"]
    under = f"of {planned:,} planned" if planned and planned != summary["steps"] else ""
    under += f", {pace:.3g} s each" if pace is not None else ""
    tiles.append(tile("Steps", f"{summary['steps']:,}", under.removeprefix(", ")))
    passes = f"{summary['forwards']:,} forward passes"
    if summary["backwards"]:
        passes += f", {summary['backwards']:,} backward"
    if summary["predicted_seconds"] is not None:
        passes += f"; {format_seconds(summary['predicted_seconds'])} were predicted"
    tiles.append(tile("Time", format_seconds(summary["seconds_total"]), passes))
    for name, value in summary["metrics"].items():
        if isinstance(value, float):
            shown = f"{100 * value:.0f}%" if name.endswith("accuracy") else f"{value:.4g}"
            tiles.append(tile(words_of(name), shown, ""))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _notices(summary: Record) -> str:
    """Return what was said at the start: what was cut, left out or set aside, a line each."""
    lines = summary.get("notices")
    lines = [str(line) for line in lines] if isinstance(lines, list) else []
    return section(
        "Notices", f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>", bool(lines)
    )


def _slopes(check: Record | None) -> str:
    if not check:
        return ""
    rows = []
    for row in check["rows"]:
        chosen = "used" if row["epsilon"] == check["epsilon"] else ""
        agreement = row.get("agreement")
        cells = [f"{row['epsilon']:g}", "" if agreement is None else f"{agreement:.3f}"]
        rows.append((*cells, chosen))
    names = ["radius", "agreement", ""]
    intro = (
        '<p class="quiet">Before the first step the loss was measured along a few directions at '
        "several radii. Agreement near 1 means that the slope is signal, not rounding.</p>"
    )
    return section("Slope check", intro + table(names, rows), bool(rows))


def _events(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        step, text = record.get("step"), None
        if record["kind"] == "event":
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
        elif record["kind"] == "step" and record.get("skipped"):
            text = f"rolled back: {record['skipped']}"
        if text:
            rows.append((str(step), text))
    more = len(rows) - _MOST_EVENTS
    if more > 0:
        rows = [*rows[:_MOST_EVENTS], ("", f"and {more:,} more in journal.jsonl")]
    return section("Events", table(("step", "what happened"), rows), bool(rows))


def _settings(summary: Record, facts: Record, hidden: Collection[str]) -> str:
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
    rows.append(("Times resumed", str(summary["resumed"])))
    metrics = {k: v for k, v in summary["metrics"].items() if k != "confusion"}
    rows += [(words_of(k), value_of(k, v)) for k, v in metrics.items()]
    rows += [(f"Version of {name}", str(v)) for name, v in summary["versions"].items()]
    rows = [(name, value) for name, value in rows if value]
    return section("Settings", table(("setting", "value"), rows), bool(rows))


def _passes(summary: Record) -> str:
    """Return how a run went over the file of its weights.

    >>> _passes({"weights_order": "block by block", "weights_passes": 6, "weights_evaluations": 9})
    'block by block, 6 passes for 9 forward passes of one sample'
    """
    return (
        f"{summary['weights_order']}, {summary['weights_passes']} passes for "
        f"{summary['weights_evaluations']} forward passes of one sample"
    )
