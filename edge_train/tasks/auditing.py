"""What audits of all tasks share: their record of finished parts, their cap, and what they leave.

An audit writes `audit.json` and the page of its run anew. While it works, `audit.jsonl` holds the
numbers of its finished parts, so that one that was killed goes on where it was and ends with the
same bits; it holds neither a patch nor a text, and goes away at the end.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_train.command import House
from edge_train.errors import InputError
from edge_train.formats.atomic import write_bytes
from edge_train.memory.footprint import Footprint, PlanLine
from edge_train.memory.guard import Guard
from edge_train.memory.plan import load_libraries
from edge_train.recipe import Recipe
from edge_train.records.journal import Journal
from edge_train.records.lines import LONGEST_LINE, decode
from edge_train.units import format_bytes

AUDIT, _PARTS = "audit.json", "audit.jsonl"
VERSION = 1


@dataclass(frozen=True)
class Audit:
    """An audit in progress.

    Attributes:
      run: the folder of the run.
      recipe: of the run.
      cap_bytes: the most that this process tree may hold.
      options: as they were typed.
      house: what trains and reports.
      say: told a line.
    """

    run: Path
    recipe: Recipe
    cap_bytes: int | None
    options: argparse.Namespace
    house: House
    say: Callable[[str], None] = field(default=lambda line: print(line, flush=True))

    def guard(self) -> Guard:
        """Return what stops it when it holds more than its cap."""
        link = self.options.link
        return Guard(self.cap_bytes, lambda: 0, root=None if link is None else link.supervisor)

    def plan(self, footprint: Footprint, lines: Sequence[PlanLine]) -> None:
        """Say what it will hold, before it holds it.

        Args:
          footprint: of the run; its libraries are loaded here, and counted.
          lines: what is held beside them.

        Raises:
          InputError: that is more than the cap.
        """
        link = self.options.link
        if link is not None:
            with link.watch.loading():
                base = load_libraries(footprint.libraries)
        else:
            base = load_libraries(footprint.libraries)
        every = [
            PlanLine("interpreter and libraries", base),
            PlanLine("engine at its first pass", footprint.first_use_bytes),
            *lines,
        ]
        needs = sum(line.bytes for line in every)
        words = ", ".join(
            f"{line.name} {format_bytes(line.bytes)}"
            for line in sorted(every, key=lambda line: -line.bytes)[:3]
        )
        if self.cap_bytes is not None and needs > self.cap_bytes:
            raise InputError(
                f"{self.run}: the audit needs about {format_bytes(needs)}, cap is "
                f"{format_bytes(self.cap_bytes)} (--mem). Largest: {words}. Try --mem "
                f"{-(-needs // 10_000_000) * 10}MB."
            )
        if link is not None:
            link.tell(planned=True, needs_bytes=needs, largest=words)
        cap = f", cap {format_bytes(self.cap_bytes)}" if self.cap_bytes is not None else ""
        self.say(f"plan: about {format_bytes(needs)}{cap} ({words})")


class Parts:
    """The finished parts of an audit, on disk; a part is numbers under a name.

    Args:
      key: of all that its numbers depend on; parts of another one are dropped.
    """

    def __init__(self, run: Path, key: object) -> None:
        self._path = run / _PARTS
        self._known: dict[str, list[Any]] = {}
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        intact = self._read(digest)
        self._journal = Journal(self._path, intact)
        if not intact:
            self._journal.append({"kind": "audit", "key": digest}, durable=True)

    def _read(self, digest: str) -> int:
        """Take what is whole and of this audit; return how many bytes that is."""
        intact = 0
        if not self._path.is_file():
            return intact
        with self._path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                try:
                    record = decode(line)
                except ValueError:
                    break
                if not intact and record.get("key") != digest:
                    break
                if intact:
                    self._known.setdefault(str(record.get("name")), []).append(record.get("value"))
                intact += len(line)
        return intact

    def of(self, name: str) -> list[Any]:
        """Return what was kept under a name, in order."""
        return self._known.get(name, [])

    def keep(self, name: str, value: Any) -> None:
        """Keep one more number, or several, under a name."""
        self._known.setdefault(name, []).append(value)
        self._journal.append({"kind": "part", "name": name, "value": value})

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what was kept under a name, or make and keep it."""
        if not self.of(name):
            self.keep(name, make())
        return self.of(name)[0]

    def __enter__(self) -> "Parts":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._journal.close()
        if kind is None:
            self._path.unlink(missing_ok=True)


def read_audit(run: Path) -> dict[str, Any] | None:
    """Return what an audit of a run left; None: none, or the file is no such thing."""
    try:
        found = json.loads((run / AUDIT).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        return None
    return found


def leave(run: Path, numbers: Mapping[str, Any]) -> None:
    """Write the numbers of an audit into the folder of its run, whole or not at all."""
    text = json.dumps(numbers, indent=2, allow_nan=False)
    write_bytes(run / AUDIT, f"{text}\n".encode())
