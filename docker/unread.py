"""Print the installed distributions that only the hub's client brings, a name a line.

tokenizers asks for it to download by name, and a device reads folders. A requirement counts
whatever its platform, so that what is doubtful stays.
"""

from __future__ import annotations

import re
from importlib.metadata import distributions

HUB = "huggingface-hub"


def plain(name: str) -> str:
    """Return the one spelling by which names of distributions are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, set[str]]:
    """Return what every installed distribution asks for; what its extras want does not count."""
    asks = {}
    for found in distributions():
        lines = [line for line in found.requires or () if "extra ==" not in line]
        names = {plain(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}
        asks[plain(found.metadata["Name"])] = names
    return asks


def reached(start: set[str], asks: dict[str, set[str]]) -> set[str]:
    """Return what `start` leads to, itself among it."""
    found: set[str] = set()
    todo = set(start)
    while todo:
        found |= todo
        todo = {name for known in todo for name in asks.get(known, ())} - found
    return found


def unread(asks: dict[str, set[str]]) -> set[str]:
    """Return the distributions that go when nobody asks for the hub's client."""
    brought = reached({HUB}, asks)
    without = {name: names - {HUB} for name, names in asks.items()}
    return (brought - reached(asks.keys() - brought, without)) & asks.keys()


if __name__ == "__main__":
    print("\n".join(sorted(unread(installed()))))
