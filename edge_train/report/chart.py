"""Curves as inline SVG: axes with round ticks, thin lines, colors that the page's style decides."""

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import overload

import numpy as np

Point = tuple[float, float]

_WIDTH, _HEIGHT = 720, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 704, 14, 210
_MOST_POINTS = 600  # about one a pixel; more makes the page large and the line no better
_MEDIANS = 240  # places where the running median is taken
_OUTLIERS = 0.5  # percent of the highest values that may leave the picture


class Points(Sequence[Point]):
    """Points of a long curve in 16 bytes each, where a list of pairs takes 120."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.x, self.y = array("d"), array("d")
        self.extend(points)

    def extend(self, points: Iterable[Point]) -> None:
        """Add several at the end."""
        for point in points:
            self.append(point)

    def append(self, point: Point) -> None:
        """Add one at the end."""
        self.x.append(point[0])
        self.y.append(point[1])

    def __len__(self) -> int:
        return len(self.x)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> list[Point]: ...
    def __getitem__(self, index: int | slice) -> Point | list[Point]:
        if isinstance(index, slice):
            return list(zip(self.x[index], self.y[index], strict=True))
        return self.x[index], self.y[index]


@dataclass(frozen=True)
class Curve:
    """One curve; `style` is a class of the page's style sheet, `dots` marks every point.

    The style `event` has dots and no line between them.
    """

    name: str
    points: Sequence[Point]
    style: str = "line"
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """One point worth a label."""

    point: Point
    text: str
    style: str = "best"


def chart(
    title: str,
    lines: Sequence[Curve],
    x_name: str,
    x_tick: Callable[[float], str],
    y_tick: Callable[[float], str],
    *,
    x_base: int = 10,
    from_zero: bool = False,
    limit: tuple[float, str] | None = None,
    level: tuple[float, str] | None = None,
    mark: Mark | None = None,
) -> str:
    """Return an SVG element of curves over one x axis; without points, an empty string.

    Args:
      title: what the picture shows, for those who cannot see it.
      x_tick: text of a value on the x axis, with its unit; `y_tick` likewise.
      x_base: 10 for numbers, 60 for seconds: which ticks are round.
      from_zero: let the y axis start at 0, where lengths matter more than changes.
      limit: a level that is drawn across as a dashed line, with its label.
      level: likewise, for what was expected rather than allowed.
      mark: one labeled point, usually the lowest.
    """
    across = array("d", (x for line in lines for x, _ in line.points))
    if not across:
        return ""
    low, high = _y_range(array("d", (y for line in lines for _, y in line.points)), from_zero)
    if mark:
        low -= (high - low) * 0.15  # room for the label under the lowest point
    for line_across in (limit, level):
        high = max(high, line_across[0] * 1.08) if line_across else high
    x_low, x_high = min(across), max(across)
    x_high = x_high if x_high > x_low else x_low + 1

    def place(point: Point) -> Point:
        across = (point[0] - x_low) / (x_high - x_low)
        up = (point[1] - low) / (high - low)
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - up * (_BOTTOM - _TOP)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>']
    for value in ticks(low, high, 5):
        _, y = place((x_low, value))
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(_text(_LEFT - 8, y + 4, "end", y_tick(value)))
    for value in ticks(x_low, x_high, 7, x_base):
        x, _ = place((value, low))
        parts.append(f'<path class="axis" d="M{x:.1f} {_BOTTOM}v5"/>')
        parts.append(_text(x, _BOTTOM + 19, "middle", x_tick(value)))
    parts.append(f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>')
    parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 4, "middle", x_name))
    if limit:
        _, y = place((x_low, limit[0]))
        parts.append(f'<path class="limit" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(_text(_RIGHT - 2, y - 5, "end", limit[1], "limit-label"))
    if level:
        _, y = place((x_low, level[0]))
        parts.append(f'<path class="level" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(_text(_LEFT + 4, y - 5, "start", level[1]))
    for line in lines:
        placed = [place(point) for point in thinned(line.points) if low <= point[1] <= high]
        if len(placed) > 1 and line.style != "event":
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            parts.append(f'<path class="{line.style}" d="M{path}"/>')
        if line.dots or len(placed) == 1:
            for x, y in placed:
                parts.append(
                    f'<circle class="{line.style}-dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>'
                )
    if mark:
        x, y = place(mark.point)
        side = "end" if x > (_LEFT + _RIGHT) / 2 else "start"
        parts.append(f'<circle class="{mark.style}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        parts.append(_text(x, y + 21, side, mark.text, "mark-label"))
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int, base: int = 10) -> list[float]:
    """Return about so many round values inside [low, high].

    >>> ticks(0, 870, 5)
    [0.0, 200.0, 400.0, 600.0, 800.0]
    >>> ticks(0, 400, 5, base=60)
    [0.0, 120.0, 240.0, 360.0]
    """
    rough = (high - low) / about
    if base == 60 and rough > 10:
        unit = 60 ** min(math.floor(math.log(rough, 60)), 2)
        rounds: Sequence[float] = (1, 2, 5, 10, 15, 30, 60, 120)
    else:
        unit = 10 ** math.floor(math.log10(rough))
        rounds = (1, 2, 2.5, 5, 10)
    step = unit * next((r for r in rounds if r * unit >= rough * 0.85), rounds[-1])
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(float(i * step), 12) for i in range(first, last + 1)]


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most 600 points that keep every visible peak: the ends of each stretch.

    >>> thinned([(0, 1.0), (1, 5.0)])
    [(0, 1.0), (1, 5.0)]
    """
    if len(points) <= _MOST_POINTS:
        return list(points)
    kept: list[Point] = []
    edges = np.linspace(0, len(points), _MOST_POINTS // 2 + 1).astype(int).tolist()
    for first, last in pairwise(edges):
        stretch = points[first:last]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def running_median(points: Sequence[Point]) -> list[Point]:
    """Return the median of y around each of at most 240 places; few points have none.

    The window is a fifteenth of the points, at least 5: losses of single diffusion batches differ
    by a factor of ten with the noise level drawn, and only their middle shows a trend.
    """
    count, half = len(points), max(len(points) // 30, 2)
    if count < 2 * half + 1:
        return []
    values = np.fromiter((y for _, y in points), np.float64, count)
    centers = np.unique(np.linspace(0, count - 1, min(count, _MEDIANS)).astype(int)).tolist()
    return [
        (points[i][0], float(np.median(values[max(i - half, 0) : i + half + 1]))) for i in centers
    ]


def _y_range(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    low = 0.0 if from_zero else min(values)
    high = float(np.percentile(values, 100 - _OUTLIERS)) if len(values) > 200 else max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (low if from_zero else low - margin), high + margin


def _text(x: float, y: float, anchor: str, text: str, style: str = "tick") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'
