"""Charts can be read: the scale fits the curve, a far cap is a number, words say the values."""

import re

from edge_train.report.chart import Curve, Level, Mark, chart
from edge_train.report.curves import smoothed

CURVE = Curve([(0.0, 1.0), (5.0, 4.0), (10.0, 2.0)], key="held")


def drawn(**changes: object) -> str:
    return chart("Memory", [CURVE], "time", "{:g}".format, "{:g} MB".format, **changes)


def heights(svg: str, style: str) -> list[float]:
    """Return how far below the top the path of a style goes."""
    path = re.findall(rf'class="{style}" d="([^"]*)"', svg)[-1]  # the first is in the key
    return [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]


def test_a_cap_near_the_curve_is_a_line() -> None:
    svg = drawn(limit=Level(6.0, "cap 6 MB", "limit"), from_zero=True)
    (height,) = heights(svg, "limit")
    assert 0 < height < min(heights(svg, "line"))
    assert "above the picture" not in svg and "cap 6 MB" in svg


def test_a_cap_far_above_is_a_number_and_the_curve_keeps_its_height() -> None:
    alone, far = (
        drawn(from_zero=True),
        drawn(limit=Level(80.0, "cap 80 MB", "limit"), from_zero=True),
    )
    assert heights(far, "line") == heights(alone, "line")
    assert 'class="limit"' not in far and "The cap 80 MB is above the picture." in far


def test_a_plan_is_drawn_however_far_it_is() -> None:
    svg = drawn(levels=[Level(9.0, "plan 9 MB")], from_zero=True)
    assert heights(svg, "level")[0] >= 0 and "plan 9 MB" in svg


def test_who_cannot_see_the_chart_hears_its_values() -> None:
    svg = drawn()
    assert 'role="img"' in svg and "<title>Memory</title>" in svg
    assert "held: 1 MB at time 0, 2 MB at time 10, between 1 MB and 4 MB" in svg


def test_a_mark_stays_inside_the_picture() -> None:
    for x, side in ((1.0, "right"), (9.0, "left")):
        assert f'class="mark {side}"' in drawn(mark=Mark((x, 1.0), "best 1"))


def test_a_long_noisy_loss_has_a_smooth_line_over_faint_values() -> None:
    noisy = [(float(i), 1.0 + (i % 7)) for i in range(300)]
    faint, smooth = smoothed(noisy)
    assert (faint.style, smooth.style) == ("faint", "line")
    spread = [
        max(y for _, y in one.points) - min(y for _, y in one.points) for one in (faint, smooth)
    ]
    assert spread[1] < spread[0] / 2
    (alone,) = smoothed(noisy[:3])  # too few to be smoothed: they are the line
    assert alone.style == "line"


def test_without_points_there_is_no_chart() -> None:
    assert chart("Loss", [Curve([])], "steps", str, str) == ""


def test_the_highest_memory_is_in_the_picture_however_short_it_was() -> None:
    """One moment in a thousand was cut off as an outlier, and it was the peak."""
    points = [(float(i), 1.0) for i in range(1000)] + [(1000.0, 9.0)]
    for from_zero, kept in ((True, 9.0), (False, 1.0)):
        svg = chart("Memory", [Curve(points)], "time", str, str, from_zero=from_zero)
        above = [y for y in heights(svg, "line") if y < heights(svg, "line")[0] - 1]
        assert bool(above) == (kept == 9.0)
