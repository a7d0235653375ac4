"""Curves as inline SVG: what is drawn is counted here, how it looks is the page's style.

The drawing stretches with the page while every word beside it keeps its size, so that a telephone
shows the same chart in readable letters.
"""

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
from markupsafe import Markup

from edge_train.report.html import render

Point = tuple[float, float]

_SIDE = 1000  # of the drawing, before it is stretched
_MOST_POINTS = 600  # about one a pixel; more makes the page large and the line no better
_MEDIANS = 240  # places where the running median is taken
_OUTLIERS = 0.5  # percent of the highest values that may leave the picture,
_MANY = 200  # where there are more than so many
_OFF_SCALE = 2.0  # times the highest value: a limit further up would flatten the curve


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

    The style `event` has dots and no line between them. A curve with a name in `key` is explained
    above the chart.
    """

    points: Sequence[Point]
    style: str = "line"
    dots: bool = False
    key: str = ""


@dataclass(frozen=True)
class Mark:
    """One point worth a label."""

    point: Point
    text: str


@dataclass(frozen=True)
class Level:
    """A value that is drawn across as a broken line, and explained above the chart."""

    value: float
    text: str
    style: str = "level"


@dataclass(frozen=True)
class _PlacedMark:
    x: float
    y: float
    text: str
    side: str


@dataclass(frozen=True)
class _Drawing:
    """A chart in units of the drawing, 0 to 1000 from the left and from the top."""

    title: str
    words: str
    description: str
    keys: Sequence[tuple[str, str]]
    x_name: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    levels: Sequence[tuple[str, float]]
    paths: Sequence[tuple[str, str]]
    mark: _PlacedMark | None


def chart(
    title: str,
    curves: Sequence[Curve],
    x_name: str,
    x_tick: Callable[[float], str],
    y_tick: Callable[[float], str],
    *,
    words: str = "",
    x_base: int = 10,
    from_zero: bool = False,
    levels: Sequence[Level] = (),
    limit: Level | None = None,
    mark: Mark | None = None,
) -> Markup:
    """Return a chart of curves over one x axis; without points, nothing.

    Args:
      title: what the picture shows.
      x_tick: text of a value on the x axis, with its unit; `y_tick` likewise.
      words: what to know about it, in a sentence.
      x_base: 10 for numbers, 60 for seconds: which ticks are round.
      from_zero: let the y axis start at 0, where lengths matter more than changes.
      levels: to be seen beside the curves.
      limit: a level that is drawn where it does not flatten the curves; else its number stands
        above the chart.
      mark: one labeled point, usually the lowest.
    """
    across = array("d", (x for curve in curves for x, _ in curve.points))
    if not across:
        return Markup()
    low, high = _y_range(array("d", (y for one in curves for _, y in one.points)), from_zero)
    if mark:
        low -= (high - low) * 0.15  # room for the label under the lowest point
    high = max([high, *(level.value * 1.08 for level in levels)])
    if limit and limit.value > _OFF_SCALE * high:
        words = f"{words} The {limit.text} is above the picture.".strip()
    elif limit:
        levels, high = [*levels, limit], max(high, limit.value * 1.08)
    x_low, x_high = min(across), max(across)
    x_high = x_high if x_high > x_low else x_low + 1

    def place(point: Point) -> Point:
        across = (point[0] - x_low) / (x_high - x_low)
        up = (point[1] - low) / (high - low)
        return round(_SIDE * across, 1), round(_SIDE * (1 - up), 1)

    drawing = _Drawing(
        title=title,
        words=words,
        description=_description(curves, x_tick, y_tick, x_name, levels),
        keys=[
            *((curve.style, curve.key) for curve in curves if curve.key and curve.points),
            *((level.style, level.text) for level in levels),
        ],
        x_name=x_name,
        x_ticks=[(place((x, low))[0], x_tick(x)) for x in ticks(x_low, x_high, 7, x_base)],
        y_ticks=[(place((x_low, y))[1], y_tick(y)) for y in ticks(low, high, 5)],
        levels=[(one.style, place((x_low, one.value))[1]) for one in levels],
        paths=[path for curve in curves for path in _paths(curve, low, high, place)],
        mark=_placed(mark, place) if mark else None,
    )
    return render("chart.html", chart=drawing)


def _paths(
    curve: Curve, low: float, high: float, place: Callable[[Point], Point]
) -> Iterable[tuple[str, str]]:
    """Yield the style and the path of a curve's line, and of its dots."""
    placed = [place(point) for point in thinned(curve.points) if low <= point[1] <= high]
    if len(placed) > 1 and curve.style != "event":
        yield curve.style, "M" + "L".join(f"{x:g} {y:g}" for x, y in placed)
    if placed and (curve.dots or len(placed) == 1):  # a line of no length has a round end: a dot
        yield f"{curve.style}-dot", "".join(f"M{x:g} {y:g}h0" for x, y in placed)


def _placed(mark: Mark, place: Callable[[Point], Point]) -> _PlacedMark:
    x, y = place(mark.point)
    return _PlacedMark(x, y, mark.text, "left" if x > _SIDE / 2 else "right")


def _description(
    curves: Sequence[Curve],
    x_tick: Callable[[float], str],
    y_tick: Callable[[float], str],
    x_name: str,
    levels: Sequence[Level],
) -> str:
    """Return the first, the last and the extreme values, for those who cannot see the curve."""
    parts = []
    for curve in curves:
        if curve.points:
            values = [y for _, y in curve.points]
            (first, last), name = (curve.points[0], curve.points[-1]), curve.key or "the curve"
            parts.append(
                f"{name}: {y_tick(first[1])} at {x_name} {x_tick(first[0])}, {y_tick(last[1])} at "
                f"{x_name} {x_tick(last[0])}, between {y_tick(min(values))} and "
                f"{y_tick(max(values))}"
            )
    return "; ".join([*parts, *(level.text for level in levels)])


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
    high = max(values)
    if len(values) > _MANY and not from_zero:  # of lengths, the highest is what one looks for
        high = float(np.percentile(values, 100 - _OUTLIERS))
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (low if from_zero else low - margin), high + margin
