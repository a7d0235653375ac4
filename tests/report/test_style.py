"""The page is readable in the light and in the dark, and costs a run nothing before it is made."""

import re
import subprocess
import sys
from itertools import product

import pytest

from edge_train.report.html import style

_LEAST_CONTRAST = 4.5  # of text, as the Web Content Accessibility Guidelines ask (level AA)


def colors() -> list[dict[str, str]]:
    """Return the colors of both schemes, light first."""
    blocks = re.findall(r":root \{(.*?)\}", str(style()), re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in blocks]


def brightness(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    found = colors()[scheme]
    pairs = [*product(("ink", "quiet"), ("page", "card", "note"))]
    pairs += [*product(("good", "warn", "bad"), ("page",)), ("bad", "card")]
    for text, behind in pairs:
        bright, dim = sorted((brightness(found[text]), brightness(found[behind])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= _LEAST_CONTRAST, (text, behind)


@pytest.mark.process
def test_training_does_not_load_what_makes_the_page() -> None:
    code = "import sys, edge_train.run.session; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
