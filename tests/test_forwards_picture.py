"""The picture of `bench forwards` shows what was measured."""

from xml.etree import ElementTree

from edge_train.bench.forwards_picture import Way, drawn

SVG = "{http://www.w3.org/2000/svg}"
WAYS = [
    Way("exact & slow", [(0, 0.0), (100, 0.2), (1000, 0.5)], 8.0, True, 470_000_000),
    Way("zo", [(0, 0.0), (100, 0.4), (1000, 0.5)], 2.0, True, 460_000_000),
    Way("preset", [(0, 0.0), (100, 0.01), (10_000, 0.1)], 70.0, False, 463_000_000),
]


def circles():
    tree = ElementTree.fromstring(drawn(WAYS, "tiny: 1 item", "95 %"))
    own, legend = tree.findall(f"{SVG}g")[1], tree.findall(f"{SVG}circle")
    return own.findall(f"{SVG}circle"), legend, tree


def test_each_way_is_a_line_a_dot_and_a_name():
    dots, legend, tree = circles()
    lines = tree.findall(f"{SVG}g")[0].findall(f"{SVG}polyline")
    assert len(dots) == len(legend) == len(lines) == len(WAYS)
    assert [line.get("stroke") for line in lines] == [dot.get("stroke") for dot in dots]
    words = [text.text for text in tree.findall(f"{SVG}text")]
    assert words == ["tiny: 1 item", "exact & slow", "zo", "preset (not reached: all of its run)"]


def test_what_took_longer_is_further_right_and_what_was_not_reached_is_hollow():
    dots, _, _ = circles()
    slow, fast, never = (float(dot.get("cx")) for dot in dots)
    assert fast < slow < never
    assert [dot.get("fill") == "#fff" for dot in dots] == [False, False, True]
    heights = [float(dot.get("cy")) for dot in dots]
    assert heights[0] < heights[2] < heights[1]  # more bytes are higher up


def test_the_start_without_a_forward_is_no_point_of_a_curve():
    lines = circles()[2].findall(f"{SVG}g")[0].findall(f"{SVG}polyline")
    assert [len(line.get("points").split()) for line in lines] == [2, 2, 2]
