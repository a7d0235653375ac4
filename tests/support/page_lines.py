"""The lines of a report that a reader copies."""

import re
from html import unescape
from pathlib import Path


def lines_to_copy(page: Path) -> dict[str, str]:
    """Return the code of a report by the heading over it."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"<h3>([^<]*)</h3>\s*<pre[^>]*>(.*?)</pre>", text, re.DOTALL)
    return {unescape(name): unescape(code) for name, code in found}
