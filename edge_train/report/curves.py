"""Losses and memory over the steps and seconds of a run."""

from collections.abc import Sequence

from markupsafe import Markup

from edge_train.report.chart import Curve, Level, Mark, Points, chart, running_median
from edge_train.report.html import Record, section
from edge_train.units import format_bytes, format_seconds

_MOST_DOTS = 60  # more of them hide the line


def curves(summary: Record, records: Sequence[Record]) -> Markup:
    """Return the section with losses over steps and memory over time."""
    charts = [*_losses(summary, records), _memory(summary, records)]
    body = Markup().join(one for one in charts if one)
    return section("Curves", body, bool(body))


def _losses(summary: Record, records: Sequence[Record]) -> list[Markup]:
    losses, evals = Points(), Points()
    for record in records:
        count = record["step"] + 1 if record["kind"] == "step" else 0
        if count and record["loss"] is not None:
            losses.append((count, record["loss"]))
        if record["kind"] in ("start", "step") and record.get("eval") is not None:
            evals.append((count, record["eval"]))
    best, mark = summary["eval"], None
    if len(evals) > 1:
        mark = Mark((best["best_step"], best["best"]), f"best {best['best']:.4f}")
    return [
        chart(
            "Loss on the fixed evaluation batch",
            [Curve(evals, dots=len(evals) <= _MOST_DOTS)],
            "steps",
            _count,
            _loss,
            words="The same samples every time, so a fall is a fall.",
            mark=mark,
        ),
        chart("Training loss", smoothed(losses), "steps", _count, _loss),
    ]


def smoothed(points: Sequence[tuple[float, float]]) -> list[Curve]:
    """Return a running median over the faint raw values, or these alone where they are few."""
    median = running_median(points)
    if not median:
        return [Curve(points, key="each step")]
    return [Curve(points, "faint", key="each step"), Curve(median, key="running median")]


def _memory(summary: Record, records: Sequence[Record]) -> Markup:
    held, anon, gpu, acts = memory_over_time(records)
    cap, plan = summary["cap_bytes"], summary["plan_peak_bytes"]
    watched = any(record["kind"] == "memory" for record in records)
    return chart(
        "Memory held",
        [
            Curve(anon, "faint", key="without mapped files and libraries"),
            Curve(held, key="all processes of the run" if watched else "after each step"),
            Curve(gpu, "second", key="on the GPU"),
            Curve(acts, "event", dots=True, key="the guard acted, see Events"),
        ],
        "time",
        _clock,
        lambda value: format_bytes(round(value)) if value else "0",
        x_base=60,
        from_zero=True,
        levels=[Level(float(plan), f"plan {format_bytes(plan)}")] if plan else [],
        limit=Level(float(cap), f"cap {format_bytes(cap)}", "limit") if cap else None,
    )


def memory_over_time(
    records: Sequence[Record],
) -> tuple[Points, Points, Points, Points]:
    """Return (seconds, bytes) of what was held, its anonymous part, on GPUs, and at events.

    One process comes after another. Where nothing watched, what was held after each step.
    """
    held, anon, gpu = Points(), Points(), Points()
    events: list[float] = []
    before = 0.0  # seconds of earlier processes
    for record in records:
        if record["kind"] == "resume" and held:
            before = held[-1][0]
        elif record["kind"] == "memory":
            times = [before + seconds for seconds in record["seconds"]]
            held.extend(zip(times, map(float, record["held_bytes"]), strict=True))
            anon.extend(zip(times, map(float, record["anon_bytes"]), strict=True))
            if "gpu_bytes" in record:
                gpu.extend(zip(times, map(float, record["gpu_bytes"]), strict=True))
        elif record["kind"] == "event" and "seconds" in record:
            events.append(before + record["seconds"])
    if not held:
        elapsed = records[0].get("seconds", 0.0)
        for record in records:
            if record["kind"] == "step":
                elapsed += record["seconds"]
                if record["resident_bytes"]:  # none of a fleet, whose devices hold their own
                    held.append((elapsed, float(record["resident_bytes"])))
    acts = Points(min(held, key=lambda point: abs(point[0] - when)) for when in events if held)
    return held, anon, gpu, acts


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def _loss(value: float) -> str:
    return f"{value:.7g}"


def _clock(value: float) -> str:
    """Return a round duration without needless zeros: `0`, `40s`, `5m`, `1h30m`."""
    text = format_seconds(value) if value >= 60 else f"{value:g}s"
    return "0" if value == 0 else text.replace("m00s", "m").replace("h00m", "h")
