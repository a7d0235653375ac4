"""A run in one sentence, and its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edge_train.report.html import Record, render, words_of
from edge_train.units import format_bytes, format_seconds


@dataclass(frozen=True)
class _Tile:
    """One number with a line under it; `share` is drawn as a bar."""

    name: str
    value: str
    under: str = ""
    share: float | None = None


def numbers(summary: Record, records: Sequence[Record]) -> Markup:
    """Return the sentence, what to type where a run can go on, and the tiles."""
    planned = _planned(records)
    return render(
        "numbers.html",
        sentence=sentence(summary, planned),
        status=summary["status"],
        tiles=_tiles(summary, planned),
    )


def sentence(summary: Record, planned: int | None) -> str:
    """Return what a run came to.

    Args:
      planned: steps that it is to have, where that is known.
    """
    took, steps = format_seconds(summary["seconds_total"]), f"{summary['steps']:,}"
    peak, cap = summary["measured_peak_bytes"], summary["cap_bytes"]
    held = ""
    if peak is not None:
        held = f", held {format_bytes(peak)}" + (f" of {format_bytes(cap)}" if cap else "")
    of = f" of {planned:,}" if planned and planned != summary["steps"] else ""
    status = summary["status"]
    if status == "done" and summary.get("ended_by_time"):
        asked = format_seconds(summary["time_seconds"])
        return f"Learned in {took}{held}; ended by its time of {asked} after {steps}{of} steps."
    if status == "done":
        return f"Learned in {took}{held}."
    if status == "over cap":
        return f"Failed after {took}{held}: more than its cap."
    if status == "running":
        return f"Not finished: {steps}{of} steps so far in {took}{held}."
    return f"Stopped after {steps}{of} steps in {took}{held}."


def _planned(records: Sequence[Record]) -> int | None:
    """Return how many steps the run is to have; None where the journal says no number."""
    longer = (record["steps"] for record in reversed(records) if record["kind"] == "extend")
    planned = next(longer, records[0]["facts"].get("steps_planned"))
    return planned if isinstance(planned, int) else None


def _tiles(summary: Record, planned: int | None) -> list[_Tile]:
    tiles = [_Tile(words_of(name), _score(name, value)) for name, value in _scores(summary)]
    tiles += _loss(summary["eval"])
    peak, cap = summary["measured_peak_bytes"], summary["cap_bytes"]
    if peak is not None and cap:
        under = f"{100 * peak / cap:.0f} % of the cap, {format_bytes(cap)}"
        tiles.append(_Tile("Peak memory", format_bytes(peak), under, peak / cap))
    elif peak is not None:
        tiles.append(_Tile("Peak memory", format_bytes(peak), "no cap was set"))
    pace = summary["seconds_per_step"]
    under = f"of {planned:,} planned" if planned and planned != summary["steps"] else ""
    under += f", {pace:.3g} s each" if pace is not None else ""
    tiles.append(_Tile("Steps", f"{summary['steps']:,}", under.removeprefix(", ")))
    expected = summary.get("predicted_seconds")
    under = f"{format_seconds(expected)} were predicted" if expected else ""
    if not under:
        under = f"{summary['forwards']:,} forward passes"
        if summary["backwards"]:
            under += f", {summary['backwards']:,} backward"
    tiles.append(_Tile("Time", format_seconds(summary["seconds_total"]), under))
    return tiles


def _scores(summary: Record) -> list[tuple[str, float]]:
    return [(name, value) for name, value in summary["metrics"].items() if isinstance(value, float)]


def _score(name: str, value: float) -> str:
    return f"{100 * value:.0f} %" if name.endswith("accuracy") else f"{value:.4g}"


def _loss(losses: Record) -> list[_Tile]:
    if losses["best"] is None or not losses["first"]:
        return []
    change = 100 * (losses["best"] / losses["first"] - 1)
    under = f"{change:+.1f} % from {losses['first']:.4f}, best after {losses['best_step']} steps"
    return [_Tile("Evaluation loss", f"{losses['best']:.4f}", under)]
