"""A run that was given another number of steps than it began with: what its journal says of it.

A record of kind `extend` stands where that was decided. Steps before it keep their rates, so that
they can be redone to the same bits; from it on the rate is that of a schedule over all steps. A
record of kind `fit` does the same in a run with a time: it says how many steps fit into it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
Spans = tuple[tuple[int, int], ...]  # (updates before it, steps in all)


@dataclass(frozen=True)
class Length:
    """How long a run is by its journal.

    Attributes:
      done: steps that were taken.
      spans: of the schedule: so many updates were made when the run became so many steps long. The
        first is that of its start; none for a run that keeps the number it began with.
      evaluations: measured before the last change; later ones decide whether the run has settled.
      fits: of a run with a time, or that ends by noise: (updates before it, steps in all).
    """

    done: int
    spans: Spans
    evaluations: int
    fits: Spans = ()


def length_of(records: Iterable[Record]) -> Length:
    """Return how long the run of a journal is."""
    done = updates = evaluations = before = planned = 0
    spans: list[tuple[int, int]] = []
    fits: list[tuple[int, int]] = []
    for record in records:
        if record["kind"] == "start":
            values = record.get("recipe", {}).get("values", {})
            planned = values.get("steps") or record["facts"].get("steps_planned") or 0
        elif record["kind"] == "step":
            done += 1
            updates += record.get("skipped") is None
            evaluations += record.get("eval") is not None
        elif record["kind"] == "extend":
            spans = spans or [(0, planned)]
            spans.append((updates, record["steps"]))
            before = evaluations
        elif record["kind"] == "fit":
            fits.append((updates, record["steps"]))
    return Length(done, tuple(spans), before, tuple(fits))
