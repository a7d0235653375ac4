"""Parts of a long check, each in a process of its own, that end in the time they are given.

What a part needs and this Python lacks is said by name, and the part is skipped; so is one for
which no time is left. Standard library only, so that this much works in any Python.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
_MOST_SAID = 2000  # characters of what a part said last
_PATIENCE_SECONDS = 5.0  # between asking a part to end and ending it


@dataclass(frozen=True)
class Part:
    """Something that is checked or measured.

    Attributes:
      name: for people.
      words: a command line.
      needs: modules that it imports.
      seconds: the least that must be left for it to be begun; an estimate.
      after: parts that must have ended well, such as the one that makes its model.
    """

    name: str
    words: Sequence[str]
    needs: Sequence[str] = ()
    seconds: float = 20.0
    after: Sequence[str] = ()


@dataclass
class Result:
    """What became of a part: `ok`, `failed` or `skipped`, why, and the numbers that it gave."""

    name: str
    state: str
    why: str = ""
    seconds: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)


def missing(needs: Sequence[str]) -> list[str]:
    """Return which modules this Python lacks."""

    def lacks(name: str) -> bool:
        try:
            return find_spec(name) is None
        except ModuleNotFoundError:  # the package around it
            return True

    return [name for name in needs if lacks(name)]


def run_parts(
    parts: Sequence[Part],
    budget_seconds: float,
    say: Callable[[str], None] = print,
    environment: Mapping[str, str] | None = None,
) -> list[Result]:
    """Run parts in order until all are done or the time is up; return what became of each.

    Args:
      budget_seconds: for all of them.
      say: told a line when a part has ended.
      environment: of the commands; None: ours.
    """
    ends = time.monotonic() + budget_seconds
    results: dict[str, Result] = {}
    for part in parts:
        left = ends - time.monotonic()
        lacking = missing(part.needs)
        before = [name for name in part.after if results[name].state != OK]
        if lacking:
            result = Result(part.name, SKIPPED, f"this Python has no {', '.join(lacking)}")
        elif before:
            result = Result(part.name, SKIPPED, f"without {before[0]!r}")
        elif left < part.seconds:
            why = f"{max(left, 0):.0f} s of {budget_seconds:.0f} were left, "
            why += f"it wants {part.seconds:.0f}"
            result = Result(part.name, SKIPPED, why)
        else:
            result = _run(part, left, environment)
        results[part.name] = result
        why = f": {result.why}" if result.why else ""
        say(f"{result.state:8}{result.name} ({result.seconds:.1f} s){why}")
    return list(results.values())


def _run(part: Part, most_seconds: float, environment: Mapping[str, str] | None) -> Result:
    """Run a part; the last line that it prints may be its numbers, as a JSON object."""
    start = time.monotonic()
    process = subprocess.Popen(
        list(part.words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=None if environment is None else dict(environment),
    )
    late = False
    try:
        said, errors = process.communicate(timeout=most_seconds)
    except subprocess.TimeoutExpired:
        late = True
        said, errors = _end(process)
    except BaseException:
        _end(process)
        raise
    seconds = time.monotonic() - start
    if late:
        return Result(part.name, FAILED, f"not done after {seconds:.0f} s, ended", seconds)
    found: dict[str, Any] = {}
    lines = said.strip().splitlines()
    with suppress(ValueError):
        found = dict(json.loads(lines[-1])) if lines else {}
    if "skipped" in found:
        return Result(part.name, SKIPPED, str(found["skipped"]), seconds)
    if process.returncode:
        words = (errors.strip() or said.strip())[-_MOST_SAID:]
        return Result(part.name, FAILED, f"status {process.returncode}: {words}", seconds, found)
    return Result(part.name, OK, "", seconds, found)


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End a part and what it started; return what it said."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_PATIENCE_SECONDS)
    return "", ""
