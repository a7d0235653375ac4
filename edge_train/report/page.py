"""The report as one calm page: no scripts, nothing loaded from elsewhere, light and dark."""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from edge_train.report.chart import Line, Mark, Point, chart, running_median
from edge_train.report.loading import ways_to_load
from edge_train.report.network import block_curves, confusion_table
from edge_train.report.style import STYLE
from edge_train.units import format_bytes, format_seconds

Record = Mapping[str, Any]

_THUMBNAIL = 320  # pixels; photos are shown small and would make the page heavy
_PIXELATED = 128  # pictures up to this side are enlarged without smoothing
_STRIP = 8  # previews in the film strip
_MOST_EVENTS = 100
_LOSS_KEY = (
    '<span class="key faint"></span>each step <span class="key"></span>running median; '
    "single steps differ with the noise level drawn"
)
_MEMORY_KEY = (
    '<span class="key"></span>held by the whole process tree, the most in every moment '
    '<span class="key faint"></span>anonymous part of the training process; '
    "dots are events of the guard, listed below"
)
_STATUS = {
    "done": ("good", "finished"),
    "interrupted": ("warn", "interrupted, can go on"),
    "stopped": ("warn", "stopped early, can go on"),
    "running": ("warn", "not finished: a running or broken-off run"),
    "over cap": ("bad", "failed: held more than its cap"),
}


def render(run: Path, summary: Record, records: Sequence[Record]) -> str:
    """Return the page of a run as HTML.

    Args:
      run: its folder; pictures come from `samples/` in it.
      summary: what `report.summarize` returns.
      records: the journal, the first one of kind `start`.
    """
    facts = records[0]["facts"]
    sections = [
        _numbers(summary, facts),
        _pictures(run, facts),
        _strip(run),
        _curves(summary, records),
        block_curves(facts, records),
        confusion_table(summary["metrics"]),
        _photos(run, facts),
        _slopes(records[0].get("slope_check")),
        _events(records),
        _settings(summary, facts),
        _loading(run, summary, facts),
    ]
    title = _title(facts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - edge-train</title><style>{STYLE}</style></head><body><main>"
        f"{_header(title, summary, facts)}{''.join(sections)}"
        f"<footer>edge-train {escape(str(summary['versions'].get('edge-train', '')))} made this "
        "page from the run's journal. <code>edge-train report</code> makes it again.</footer>"
        "</main></body></html>\n"
    )


def _title(facts: Record) -> str:
    if facts.get("token"):
        return f"Learning {facts['token']}"
    if facts.get("network"):
        return f"{facts['network']} on {facts.get('data')}"
    return f"Run: {facts.get('task')}"


def _header(title: str, summary: Record, facts: Record) -> str:
    style, words = _STATUS.get(summary["status"], ("warn", ""))
    made = [facts.get("task"), summary["method"], facts.get("model"), summary["runtime"]]
    line = " &middot; ".join(escape(str(part)) for part in [*made, summary["device"]] if part)
    words = f" {escape(words)}" if words else ""
    return (
        f'<header><h1>{escape(title)}</h1><p class="quiet">{line}</p>'
        f'<p class="status {style}"><b>{escape(summary["status"])}</b>{words}</p></header>'
    )


def _numbers(summary: Record, facts: Record) -> str:
    peak, cap = summary["measured_peak_bytes"], summary["cap_bytes"]
    tiles = []
    if peak is not None:
        bar, under = "", "no cap was set"
        if cap:
            share = min(peak / cap, 1.0)
            style = "bad" if peak > cap else "good"
            bar = f'<div class="bar {style}"><i style="width:{100 * share:.1f}%"></i></div>'
            under = f"{100 * peak / cap:.0f}% of the cap, {format_bytes(cap)}"
        tiles.append(_tile("Peak memory", format_bytes(peak), under, bar))
    losses = summary["eval"]
    if losses["best"] is not None and losses["first"]:
        change = 100 * (losses["best"] / losses["first"] - 1)
        under = f"{change:+.1f}% from {losses['first']:.4f}, best after {losses['best_step']} steps"
        tiles.append(_tile("Evaluation loss", f"{losses['best']:.4f}", under))
    pace = summary["seconds_per_step"]
    planned = facts.get("steps_planned")
    under = f"of {planned:,} planned" if planned and planned != summary["steps"] else ""
    under += f", {pace:.3g} s each" if pace is not None else ""
    tiles.append(_tile("Steps", f"{summary['steps']:,}", under.removeprefix(", ")))
    passes = f"{summary['forwards']:,} forward passes"
    if summary["backwards"]:
        passes += f", {summary['backwards']:,} backward"
    tiles.append(_tile("Time", format_seconds(summary["seconds_total"]), passes))
    for name, value in summary["metrics"].items():
        if isinstance(value, float):
            shown = f"{100 * value:.0f}%" if name.endswith("accuracy") else f"{value:.4g}"
            tiles.append(_tile(_words(name), shown, ""))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(name: str, value: str, under: str, bar: str = "") -> str:
    small = f"<small>{escape(under)}</small>" if under else ""
    return f'<div class="tile"><h3>{escape(name)}</h3><b>{escape(value)}</b>{bar}{small}</div>'


def _pictures(run: Path, facts: Record) -> str:
    """Return pairs of pictures: the prompt before training and with what was learned."""
    before, after = _samples(run, "before"), _samples(run, "after")
    label = "after"
    if not after and (previews := _previews(run)):
        last = max(previews)
        after, label = previews[last], f"after {last:,} steps"
    prompts = facts.get("prompts") or []
    pairs = []
    for number in sorted(before.keys() | after.keys()):
        shots = [(before.get(number), "before"), (after.get(number), label)]
        figures = "".join(_figure(path, words) for path, words in shots if path)
        prompt = prompts[number - 1] if number <= len(prompts) else ""
        prompt = prompt.replace("{}", str(facts.get("token") or "{}"))
        pairs.append(f'<div class="pair">{figures}<p>{escape(prompt)}</p></div>')
    return _section("Before and after", f'<div class="pairs">{"".join(pairs)}</div>', bool(pairs))


def _strip(run: Path) -> str:
    """Return the first prompt's previews on the way, at most eight of them."""
    previews = {step: shots[1] for step, shots in _previews(run).items() if 1 in shots}
    steps = sorted(previews)
    chosen = sorted({steps[i * (len(steps) - 1) // (_STRIP - 1)] for i in range(_STRIP) if steps})
    figures = "".join(_figure(previews[step], f"step {step:,}") for step in chosen)
    return _section("On the way", f'<div class="strip">{figures}</div>', len(chosen) > 1)


def _samples(run: Path, name: str) -> dict[int, Path]:
    found = {}
    for path in (run / "samples").glob(f"{name}-*.png"):
        if match := re.fullmatch(rf"{name}-(\d+)\.png", path.name):
            found[int(match[1])] = path
    return found


def _previews(run: Path) -> dict[int, dict[int, Path]]:
    """Return step -> prompt number -> picture."""
    found: dict[int, dict[int, Path]] = {}
    for path in (run / "samples").glob("step-*.png"):
        if match := re.fullmatch(r"step-(\d+)-(\d+)\.png", path.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    return found


def _figure(path: Path, words: str, small: bool = False) -> str:
    """Return a picture with everything it needs inside the page; unreadable ones leave a gap."""
    try:
        with Image.open(path) as image:
            image.load()
            tiny = max(image.size) <= _PIXELATED
            content, kind = path.read_bytes(), (image.format or "png").lower()
            if small and max(image.size) > _THUMBNAIL:
                smaller = image.convert("RGB")
                smaller.thumbnail((_THUMBNAIL, _THUMBNAIL))
                buffer = BytesIO()
                smaller.save(buffer, "JPEG", quality=85)
                content, kind = buffer.getvalue(), "jpeg"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        shown = '<div class="gap">not readable</div>'
        return f"<figure>{shown}<figcaption>{escape(words)}</figcaption></figure>"
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    style = ' class="tiny"' if tiny else ""
    return (
        f'<figure><img{style} src="{source}" alt="{escape(words)}">'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def _curves(summary: Record, records: Sequence[Record]) -> str:
    steps = [r for r in records if r["kind"] == "step"]
    losses: list[Point] = [(r["step"] + 1, r["loss"]) for r in steps if r["loss"] is not None]
    evals: list[Point] = [(r["step"] + 1, r["eval"]) for r in steps if r.get("eval") is not None]
    if records[0].get("eval") is not None:
        evals.insert(0, (0, records[0]["eval"]))
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
                [Line("evaluation", evals, dots=len(evals) <= 60)],
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
                [Line("each step", losses, "faint"), Line("running median", median)],
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
                    Line("anonymous", anon, "faint"),
                    Line("held", held),
                    *([Line("on the GPU", gpu, "second")] if gpu else []),
                    Line("events of the guard", acts, "event", dots=True),
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
    return _section("Curves", shown, bool(shown))


def memory_over_time(
    records: Sequence[Record],
) -> tuple[list[Point], list[Point], list[Point], list[Point]]:
    """Return (seconds, bytes) of what was held, its anonymous part, on GPUs, and at events.

    One process comes after another. Where nothing watched, what was held after each step.
    """
    held: list[Point] = []
    anon: list[Point] = []
    gpu: list[Point] = []
    events: list[float] = []
    before = 0.0  # seconds of earlier processes
    for record in records:
        if record["kind"] == "resume" and held:
            before = held[-1][0]
        elif record["kind"] == "memory":
            times = [before + seconds for seconds in record["seconds"]]
            held += zip(times, map(float, record["held_bytes"]), strict=True)
            anon += zip(times, map(float, record["anon_bytes"]), strict=True)
            if "gpu_bytes" in record:
                gpu += zip(times, map(float, record["gpu_bytes"]), strict=True)
        elif record["kind"] == "event" and "seconds" in record:
            events.append(before + record["seconds"])
    if not held:
        elapsed = records[0].get("seconds", 0.0)
        for record in records:
            if record["kind"] == "step":
                elapsed += record["seconds"]
                held.append((elapsed, float(record["resident_bytes"])))
    acts = [min(held, key=lambda point: abs(point[0] - when)) for when in events if held]
    return held, anon, gpu, acts


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def _loss(value: float) -> str:
    return f"{value:.7g}"


def _clock(value: float) -> str:
    """Return a round duration without needless zeros: `0`, `40s`, `5m`, `1h30m`."""
    text = format_seconds(value) if value >= 60 else f"{value:g}s"
    return "0" if value == 0 else text.replace("m00s", "m").replace("h00m", "h")


def _photos(run: Path, facts: Record) -> str:
    cards = []
    for photo in facts.get("photos") or ():
        path = _inside(run, photo.get("picture"))
        picture = _figure(path, photo["name"], small=True) if path else ""
        note, caption = photo.get("note"), photo.get("caption")
        words = f'<p class="caption">{escape(caption)}</p>' if caption else ""
        words += f"<p>{escape(note)}</p>" if note else ""
        cards.append(f'<div class="photo">{picture}{words}</div>')
    skipped = _table(
        ("file", "left aside because"), ((name, why) for name, why in facts.get("skipped") or ())
    )
    source = facts.get("captions_from")
    intro = f'<p class="quiet">Captions from {escape(str(source))}.</p>' if source else ""
    body = f'{intro}<div class="photos">{"".join(cards)}</div>{skipped}'
    return _section(f"Photos used ({len(cards)})", body, bool(cards))


def _inside(run: Path, name: str | None) -> Path | None:
    """Return the path of a file of the run; the journal cannot point anywhere else."""
    if not name:
        return None
    path = (run / name).resolve()
    return path if path.is_relative_to(run.resolve()) else None


def _slopes(check: Record | None) -> str:
    if not check:
        return ""
    rows = []
    for row in check["rows"]:
        chosen = "used" if row["epsilon"] == check["epsilon"] else ""
        agreement = row.get("agreement")
        cells = [f"{row['epsilon']:g}", "" if agreement is None else f"{agreement:.3f}"]
        noise = row.get("noise")
        rows.append((*cells, "" if noise is None else f"{noise:.3g}", chosen))
    names = ["radius", "agreement", "noise", ""]
    if not any(row[2] for row in rows):
        names.remove("noise")
        rows = [(row[0], row[1], row[3]) for row in rows]
    intro = (
        '<p class="quiet">Before the first step the loss was measured along a few directions at '
        "several radii. Agreement near 1 means that the slope is signal, not rounding.</p>"
    )
    return _section("Slope check", intro + _table(names, rows), bool(rows))


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
        elif record["kind"] == "step" and record.get("skipped"):
            text = f"rolled back: {record['skipped']}"
        if text:
            rows.append((str(step), text))
    more = len(rows) - _MOST_EVENTS
    if more > 0:
        rows = [*rows[:_MOST_EVENTS], ("", f"and {more:,} more in journal.jsonl")]
    return _section("Events", _table(("step", "what happened"), rows), bool(rows))


def _settings(summary: Record, facts: Record) -> str:
    shown = {"photos", "skipped", "captions_from", "versions", "prompts"}
    rows = [(_words(k), _value(k, v)) for k, v in facts.items() if k not in shown]
    counts = ("measured_peak_bytes", "measured_anon_bytes", "plan_peak_bytes")
    for name in (*counts, "weights_bytes", "weights_reread_bytes"):
        if summary[name] is not None:
            rows.append((_words(name), _value(name, summary[name])))
    if summary["weights_bytes"]:
        again = summary["weights_reread_bytes"] / summary["weights_bytes"]
        rows.append(("Weights read again from the file", f"{again:.1f} times"))
        if summary["weights_passes"]:
            rows.append(("Reading order of the weights", _passes(summary)))
    rows.append(("Times resumed", str(summary["resumed"])))
    metrics = {k: v for k, v in summary["metrics"].items() if k != "confusion"}
    rows += [(_words(k), _value(k, v)) for k, v in metrics.items()]
    rows += [(f"Version of {name}", str(v)) for name, v in summary["versions"].items()]
    rows = [(name, value) for name, value in rows if value]
    return _section("Settings", _table(("setting", "value"), rows), bool(rows))


def _passes(summary: Record) -> str:
    """Return how a run went over the file of its weights.

    >>> _passes({"weights_order": "block by block", "weights_passes": 6, "weights_evaluations": 9})
    'block by block, 6 passes for 9 forward passes of one sample'
    """
    return (
        f"{summary['weights_order']}, {summary['weights_passes']} passes for "
        f"{summary['weights_evaluations']} forward passes of one sample"
    )


def _words(name: str) -> str:
    """Return a key as the start of a line: `measured_peak_bytes` is `Measured peak`."""
    words = name.removesuffix("_bytes").replace("_", " ")
    return words[:1].upper() + words[1:]


def _value(name: str, value: Any) -> str:
    if value is None or value == [] or value == "":
        return ""
    if name.endswith("_bytes"):
        return f"{format_bytes(value)} ({value:,} bytes)"
    if isinstance(value, list):
        return " to ".join(map(str, value)) if name == "window" else ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _loading(run: Path, summary: Record, facts: Record) -> str:
    file, token = summary["outputs"].get("token"), facts.get("token")
    if not (file and token):
        return ""
    intro = (
        f'<p class="quiet">The token is in <code>{escape(file)}</code> and belongs to the model it '
        f"was learned on, {escape(str(facts.get('model')))}. Outside diffusers the file's name is "
        "the word to write.</p>"
    )
    ways = ways_to_load(run / file, token, str(facts.get("model")))
    blocks = "".join(f"<h3>{escape(name)}</h3><pre>{escape(code)}</pre>" for name, code in ways)
    return _section("Load it like this", intro + blocks, True)


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    if not body:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _section(title: str, body: str, shown: bool) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if shown else ""
