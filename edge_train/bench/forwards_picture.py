"""The picture of `bench forwards`: likeness against forwards, memory against time to quality."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from edge_train.report.chart import ticks

# Colors that color-blind people tell apart (Okabe and Ito, 2008).
_COLORS = [
    "#000000",
    "#0072B2",
    "#56B4E9",
    "#D55E00",
    "#E69F00",
    "#CC79A7",
    "#009E73",
    "#999999",
    "#F0E442",
]
_WIDE, _HIGH, _LEFT, _TOP = 380, 260, 60, 52  # of a panel, and what is beside it
_LINE = 16  # of the legend


@dataclass(frozen=True)
class Way:
    """What a way is drawn by.

    Attributes:
      curve: mean likeness after so many forwards, the first of which are 0.
      seconds: of a processor to the quality, median; of the whole run where that is not reached.
      peak_bytes: held at most.
    """

    name: str
    curve: Sequence[tuple[float, float]]
    seconds: float
    reached: bool
    peak_bytes: int


@dataclass(frozen=True)
class _Axis:
    """A span of values over a length, by their logarithms or as they are."""

    low: float
    high: float
    length: float
    logs: bool

    def at(self, value: float) -> float:
        low, high, value = (self._own(one) for one in (self.low, self.high, value))
        return self.length * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        if not self.logs:
            return [t for t in ticks(self.low, self.high, 5) if self.low <= t <= self.high]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        all_of = (n * 10.0**power for power in range(first, last + 1) for n in (1, 2, 3, 5))
        return [tick for tick in all_of if self.low <= tick <= self.high]

    def _own(self, value: float) -> float:
        return math.log10(value) if self.logs else value


def drawn(ways: Sequence[Way], title: str, quality: str) -> str:
    """Return an SVG of two panels and a legend.

    Args:
      title: what was measured, above both.
      quality: what the time is taken to, as words.
    """
    colors = {way.name: _COLORS[n % len(_COLORS)] for n, way in enumerate(ways)}
    height = _TOP + _HIGH + 60 + _LINE * len(ways)
    second = _LEFT + _WIDE + 90
    legend = [
        f'<circle cx="{_LEFT + 5}" cy="{_TOP + _HIGH + 56 + _LINE * n}" r="4" fill="{color}"/>'
        + _text(_LEFT + 16, _TOP + _HIGH + 60 + _LINE * n, _said(way), "start")
        for n, (way, color) in enumerate(zip(ways, colors.values(), strict=True))
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {second + _WIDE + 30} {height}" '
            'font-family="sans-serif" font-size="12" role="img">',
            f"<title>{escape(title)}</title>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            _text(_LEFT, 20, title, "start", 'font-weight="bold"'),
            f'<g transform="translate({_LEFT} {_TOP})">{_curves(ways, colors)}</g>',
            f'<g transform="translate({second} {_TOP})">{_costs(ways, colors, quality)}</g>',
            *legend,
            "</svg>\n",
        ]
    )


def _said(way: Way) -> str:
    return way.name if way.reached else f"{way.name} (not reached: all of its run)"


def _curves(ways: Sequence[Way], colors: Mapping[str, str]) -> str:
    points = [(x, y) for way in ways for x, y in way.curve if x > 0]
    across = _Axis(min(x for x, _ in points), max(x for x, _ in points), _WIDE, logs=True)
    room = 0.05 * (max(y for _, y in points) - min(y for _, y in points) or 1)
    low, high = min(y for _, y in points) - room, max(y for _, y in points) + room
    up = _Axis(low, high, _HIGH, logs=False)
    lines = []
    for way in ways:
        path = " ".join(f"{across.at(x):.1f},{_HIGH - up.at(y):.1f}" for x, y in way.curve if x > 0)
        lines.append(
            f'<polyline points="{path}" fill="none" stroke="{colors[way.name]}" stroke-width="2"/>'
        )
    return _frame(across, up, "forward passes", "likeness (cosine)") + "".join(lines)


def _costs(ways: Sequence[Way], colors: Mapping[str, str], quality: str) -> str:
    seconds = [way.seconds for way in ways]
    megabytes = [way.peak_bytes / 1e6 for way in ways]
    across = _Axis(min(seconds) / 1.5, max(seconds) * 1.5, _WIDE, logs=True)
    up = _Axis(0, 1.2 * max(megabytes), _HIGH, logs=False)
    dots = []
    for way, x, y in zip(ways, seconds, megabytes, strict=True):
        fill = colors[way.name] if way.reached else "#fff"
        dots.append(
            f'<circle cx="{across.at(x):.1f}" cy="{_HIGH - up.at(y):.1f}" r="5" fill="{fill}" '
            f'stroke="{colors[way.name]}" stroke-width="2"/>'
        )
    return _frame(across, up, f"processor seconds to {quality}", "MB held at most") + "".join(dots)


def _frame(across: _Axis, up: _Axis, below: str, above: str) -> str:
    parts = [
        f'<path d="M0 0V{_HIGH}H{_WIDE}" fill="none" stroke="#333"/>',
        _text(_WIDE / 2, _HIGH + 34, below, "middle"),
        _text(-8, -8, above, "start"),
    ]
    for tick in across.ticks():
        x = f"{across.at(tick):.1f}"
        parts.append(f'<path d="M{x} 0V{_HIGH}" stroke="#ddd"/>')
        parts.append(_text(float(x), _HIGH + 16, f"{tick:,g}", "middle"))
    for tick in up.ticks():
        y = _HIGH - up.at(tick)
        parts.append(f'<path d="M0 {y:.1f}H{_WIDE}" stroke="#ddd"/>')
        parts.append(_text(-6, y + 4, f"{tick:,g}", "end"))
    return "".join(parts)


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    own = f" {more}" if more else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{own}>{escape(words)}</text>'
