"""Facts of a run, taken from its journal alone."""

import statistics
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_train.errors import RunFolderError
from edge_train.records import journal
from edge_train.records.best import replaces_best
from edge_train.records.folder import RunFolder

Record = Mapping[str, Any]

_WEIGHTS = (
    *("weights_bytes", "weights_reread_bytes"),
    *("weights_order", "weights_passes", "weights_evaluations"),
)
_FACTS = (
    "task",
    "method",
    "runtime",
    "device",
    "dtype",
    "quant",
    "model_sha256",
    "seed",
    "threads",
)


def summarize(run: Path) -> dict[str, Any]:
    """Return the contents of `report.json`: bytes are integers, times are seconds.

    Every key is there for every task; what is not known (yet) is None. The best evaluation counts
    from the start vectors on: `best_step` is the number of steps taken when it was measured.

    Raises:
      RunFolderError: `run` has no journal, or nothing was trained yet.
    """
    return summary_of(read_records(run))


def read_records(run: Path) -> Sequence[Record]:
    """Return the journal of a run that began.

    Raises:
      RunFolderError: `run` has no journal, nothing was trained yet, or there is a pipe in it.
    """
    RunFolder(run).check_kinds()
    records, _ = journal.read(RunFolder(run).journal)
    if not has_begun(records):
        raise RunFolderError(
            f"{run}: the journal has no first record, so nothing was trained yet; start again with "
            "`edge-train run`."
        )
    return records


def has_begun(records: Sequence[Record]) -> bool:
    """Return whether a journal has the first record of a run, whole."""
    return bool(records) and {"facts", "slope_check"} <= records[0].keys()


def summary_of(records: Iterable[Record]) -> dict[str, Any]:
    """Return what `summarize` does, of a journal that is read once, a record at a time."""
    found = _Facts()
    for record in records:
        found.add(record)
    facts = found.facts
    ends = found.ends
    end: Record = ends[-1] if ends else {}
    return {
        "status": "over cap" if found.over_cap else found.status,
        **{name: facts.get(name) for name in _FACTS},
        "cap_bytes": found.cap,
        "wall": found.wall,
        "time_seconds": found.time,
        "ended_by_time": found.status == "done" and end.get("ended_by") == "time",
        "plan_peak_bytes": found.plan,
        "measured_peak_bytes": found.peak,
        "measured_anon_bytes": max((r.get("measured_anon_bytes") or 0 for r in ends), default=None),
        **{name: max((r[name] for r in ends if name in r), default=None) for name in _WEIGHTS},
        "steps": len(found.seconds),
        "forwards": found.forwards,
        "backwards": found.backwards,
        "selection_seconds": found.selection,
        "seconds_total": found.total + found.counted,
        "predicted_seconds": found.predicted,
        "joules": sum(r["joules"] for r in ends if "joules" in r) if found.from_counter else None,
        "joules_from": found.from_counter,
        "seconds_per_step": statistics.median(found.seconds) if found.seconds else None,
        "resumed": found.resumed,
        "eval": found.eval,
        "metrics": end.get("metrics", {}),
        "versions": facts.get("versions", {}),
        "outputs": end.get("outputs", {}),
        "notices": facts.get("notices", []),
        **({"labels": facts["labels"]} if "labels" in facts else {}),
    }


@dataclass
class _Facts:
    """What the records so far say of a run; eight bytes a step are kept.

    Attributes:
      cap: that is in force; peak: the most that a process held which had it.
      over_cap: whether any process of the run held more than the cap that it was given.
      status: the last word: `running` if steps follow the last end.
      time: seconds that the run may take; from_counter: what counted its joules.
      predicted: seconds that the run was to take, as it said before its first step, or after a few.
      selection: seconds in which candidates were scored and chosen from; None: nothing chose.
      total: seconds of the processes that are over; counted: of one that was killed, its steps.
      ends: the last records of all processes, which are few.
    """

    facts: Record = field(default_factory=dict)
    cap: int | None = None
    peak: int | None = None
    time: float | None = None
    from_counter: str | None = None
    wall: str | None = None
    plan: int | None = None
    predicted: float | None = None
    over_cap: bool = False
    status: str = "running"
    forwards: int = 0
    backwards: int = 0
    selection: float | None = None
    resumed: int = 0
    total: float = 0.0
    counted: float = 0.0
    margin: float = 0.0  # of `replaces_best`
    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    ends: list[Record] = field(default_factory=list)
    eval: dict[str, Any] = field(
        default_factory=lambda: dict.fromkeys(("first", "best", "best_step", "last"))
    )

    def add(self, record: Record) -> None:
        """Count a record."""
        kind = record["kind"]
        if kind == "start":
            self.facts = facts = record["facts"]
            self.cap, self.wall = facts.get("cap_bytes"), facts.get("wall")
            self.plan = facts.get("plan_peak_bytes")
            self.time = facts.get("time_seconds")
            self.predicted = facts.get("predicted_seconds")
            self.forwards = record.get("forwards", 0)
            self.eval["first"] = record.get("eval")
            self.margin = record.get("best_margin", 0.0)
            self._evaluated(0, record.get("eval"))
        elif kind == "step":
            self.status = "running"
            self.seconds.append(record["seconds"])
            self.counted += record["seconds"]
            self.forwards += record["forwards"]
            self.backwards += record["backwards"]
            if (seconds := record.get("selection_seconds")) is not None:
                self.selection = (self.selection or 0.0) + seconds
            self._evaluated(record["step"] + 1, record.get("eval"))
        elif kind == "event":
            self.predicted = record.get("predicted_seconds", self.predicted)
        elif kind == "extend":
            self.status = "running"
            self.predicted = None  # of a shorter run
        elif kind == "resume":
            self.status = "running"
            self.resumed += 1
            self.time = record.get("time_seconds", self.time)
            if record.get("cap_bytes", self.cap) != self.cap:
                self.cap, self.peak = record["cap_bytes"], None
        elif kind == "end":
            self.status = str(record["status"])
            self.ends.append(record)
            self.from_counter = record.get("joules_from", self.from_counter)
            self.total, self.counted = self.total + record["seconds_total"], 0.0
        if kind in ("start", "resume"):
            self.total, self.counted = self.total + self.counted, record.get("seconds", 0.0)
        self.wall = record.get("wall") or self.wall
        self.plan = record.get("plan_peak_bytes", self.plan)
        if peak := record.get("peak_bytes") or record.get("measured_peak_bytes"):
            self.peak = max(self.peak or 0, peak)
            self.over_cap = self.over_cap or bool(self.cap and peak > self.cap)

    def _evaluated(self, step: int, loss: float | None) -> None:
        if loss is None:
            return
        self.eval["last"] = loss
        best = self.eval["best"]
        if best is None or replaces_best(loss, best, self.eval["first"], self.margin):
            self.eval["best"], self.eval["best_step"] = loss, step


def cap_in_force(records: Iterable[Record]) -> int | None:
    """Return the cap at the end of a journal's records: a resumed run may have another one."""
    cap: int | None = None
    for record in records:
        if record["kind"] == "start":
            cap = record["facts"].get("cap_bytes")
        elif record["kind"] == "resume":
            cap = record.get("cap_bytes", cap)
    return cap


def time_in_force(records: Iterable[Record]) -> float | None:
    """Return the seconds that a run may take, by the end of a journal's records."""
    seconds: float | None = None
    for record in records:
        if record["kind"] == "start":
            seconds = record["facts"].get("time_seconds")
        elif record["kind"] == "resume":
            seconds = record.get("time_seconds", seconds)
    return seconds


def changes_for_memory(
    records: Sequence[Mapping[str, Any]], cap_bytes: int | None
) -> dict[str, Any]:
    """Return the recipe keys that memory made a run change, none if its cap is another one now."""
    found: dict[str, Any] = {}
    for record in records:
        if record["kind"] == "resume":
            found = dict(record.get("changes", {}))
        elif record["kind"] == "event":
            found |= record.get("changes", {})
        elif record["kind"] == "start":
            found |= record["facts"].get("smaller", {})
    return found if cap_in_force(records) == cap_bytes else {}
