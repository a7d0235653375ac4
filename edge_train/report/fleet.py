"""Who took part in a fleet: rounds and why answers were left out, from the server's journal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train.report.html import section, table
from edge_train.units import format_bytes

Record = Mapping[str, Any]
_MOST = 50  # devices in the table


def render(run: Path, summary: Record, records: Sequence[Record]) -> str:
    """Return the section; empty for a run that is no fleet's server."""
    del run, summary  # the journal has it all
    rounds, left = Counter[int](), dict[int, Counter[str]]()
    steps, up, down = 0, 0, 0
    for record in records:
        fleet = record.get("fleet", {})
        if record["kind"] != "step" or "devices" not in fleet:
            continue
        steps += 1
        up, down = up + fleet["up_bytes"], down + fleet["down_bytes"]
        rounds.update(_numbers(fleet["devices"]))
        for number, why in fleet["left"].items():
            left.setdefault(int(number), Counter())[str(why)] += 1
    if not steps:
        return ""
    devices = sorted({*rounds, *left})
    rows = [(f"device {n}", f"{rounds[n]} of {steps} steps", _why(left.get(n))) for n in devices]
    rows = rows[:_MOST]
    if len(devices) > _MOST:
        rows.append((f"{len(devices) - _MOST} more", "", ""))
    rows.append(("sent in all", f"{format_bytes(up)} up, {format_bytes(down)} down", ""))
    return str(section("Who took part", table(("", "averaged in", "left out"), rows), True))


def _numbers(text: str) -> list[int]:
    """Return the numbers that `0-2 4` stands for."""
    found: list[int] = []
    for word in text.split():
        first, _, last = word.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _why(reasons: "Counter[str] | None") -> str:
    return "; ".join(f"{why} ({count})" for why, count in (reasons or {}).items())
