"""Losses and memory over the steps and seconds of a run."""

from collections.abc import Sequence

from edge_train.report.chart import Curve, Mark, Points, chart, running_median
from edge_train.report.html import Record, section
from edge_train.units import format_bytes, format_seconds

_LOSS_KEY = (
    '<span class="key faint"></span>each step <span class="key"></span>running median; '
    "single steps differ with the noise level drawn"
)
_MEMORY_KEY = (
    '<span class="key"></span>held by the whole process tree, the most in every moment '
    '<span class="key faint"></span>anonymous part of the training process; '
    "dots are events of the guard, listed below"
)


def curves(summary: Record, records: Sequence[Record]) -> str:
    """Return the section with losses over steps and memory over time."""
    losses, evals = Points(), Points()
    for record in records:
        count = record["step"] + 1 if record["kind"] == "step" else 0
        if count and record["loss"] is not None:
            losses.append((count, record["loss"]))
        if record["kind"] in ("start", "step") and record.get("eval") is not None:
            evals.append((count, record["eval"]))
    best = summary["eval"]
    mark = None
    if len(evals) > 1:
        mark = Mark((best["best_step"], best["best"]), f"best {best['best']:.4f}")
    held, anon, gpu, acts = memory_over_time(records)
    cap, plan = summary["cap_bytes"], summary["plan_peak_bytes"]
    median = running_median(losses)
    charts = [
        (
            "Loss on the fixed evaluation batch",
            "the same samples and noise every time, so a fall is a fall",
            chart(
                "Evaluation loss over steps",
                [Curve("evaluation", evals, dots=len(evals) <= 60)],
                "steps",
                _count,
                _loss,
                mark=mark,
            ),
        ),
        (
            "Training loss",
            _LOSS_KEY,
            chart(
                "Training loss over steps",
                [Curve("each step", losses, "faint"), Curve("running median", median)],
                "steps",
                _count,
                _loss,
            ),
        ),
        (
            "Memory held",
            _MEMORY_KEY,
            chart(
                "Memory over time",
                [
                    Curve("anonymous", anon, "faint"),
                    Curve("held", held),
                    *([Curve("on the GPU", gpu, "second")] if gpu else []),
                    Curve("events of the guard", acts, "event", dots=True),
                ],
                "time",
                _clock,
                lambda value: format_bytes(round(value)) if value else "0",
                x_base=60,
                from_zero=True,
                limit=(float(cap), f"cap {format_bytes(cap)}") if cap else None,
                level=(float(plan), f"plan {format_bytes(plan)}") if plan else None,
            ),
        ),
    ]
    shown = "".join(
        f'<h3>{name}</h3><p class="quiet">{words}</p>{svg}' for name, words, svg in charts if svg
    )
    return section("Curves", shown, bool(shown))


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
