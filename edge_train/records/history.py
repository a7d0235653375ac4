"""Facts of a run, taken from its journal alone."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_train.errors import RunFolderError
from edge_train.records import journal
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


def read_records(run: Path) -> list[dict[str, Any]]:
    """Return the journal of a run that began.

    Raises:
      RunFolderError: `run` has no journal, or nothing was trained yet.
    """
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


def summary_of(records: Sequence[Record]) -> dict[str, Any]:
    """Return what `summarize` does, of a journal that was read."""
    start, facts = records[0], records[0]["facts"]
    steps = [r for r in records if r["kind"] == "step"]
    ends = [r for r in records if r["kind"] == "end"]
    end: Record = ends[-1] if ends else {}
    peak = max((p for p in map(_peak, _since_last_cap(records)) if p), default=None)
    return {
        "status": "over cap" if _over_cap(records) else _status(records),
        **{name: facts.get(name) for name in _FACTS},
        "cap_bytes": cap_in_force(records),
        "wall": next((r["wall"] for r in reversed(records) if r.get("wall")), facts.get("wall")),
        "plan_peak_bytes": next(
            (r["plan_peak_bytes"] for r in reversed(records) if "plan_peak_bytes" in r),
            facts.get("plan_peak_bytes"),
        ),
        "measured_peak_bytes": peak,
        "measured_anon_bytes": max((r.get("measured_anon_bytes") or 0 for r in ends), default=None),
        **{name: max((r[name] for r in ends if name in r), default=None) for name in _WEIGHTS},
        "steps": len(steps),
        "forwards": start.get("forwards", 0) + sum(r["forwards"] for r in steps),
        "backwards": sum(r["backwards"] for r in steps),
        "seconds_total": _seconds_total(records),
        "seconds_per_step": statistics.median(r["seconds"] for r in steps) if steps else None,
        "resumed": sum(r["kind"] == "resume" for r in records),
        "eval": _eval(start, steps),
        "metrics": end.get("metrics", {}),
        "versions": facts.get("versions", {}),
        "outputs": end.get("outputs", {}),
    }


def cap_in_force(records: Sequence[Record]) -> int | None:
    """Return the cap at the end of a journal's records: a resumed run may have another one."""
    cap: int | None = records[0]["facts"].get("cap_bytes")
    for record in records:
        if record["kind"] == "resume":
            cap = record.get("cap_bytes", cap)
    return cap


def _since_last_cap(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records of the processes that had the cap which was in force at the end."""
    cap, first = records[0]["facts"].get("cap_bytes"), 0
    for number, record in enumerate(records):
        if record["kind"] == "resume" and record.get("cap_bytes", cap) != cap:
            cap, first = record["cap_bytes"], number
    return records[first:]


def _peak(record: Record) -> int | None:
    return record.get("peak_bytes") or record.get("measured_peak_bytes")


def _over_cap(records: Sequence[Record]) -> bool:
    """Return whether any process of the run held more than the cap that it was given."""
    cap = records[0]["facts"].get("cap_bytes")
    for record in records:
        if record["kind"] == "resume":
            cap = record.get("cap_bytes", cap)
        peak = _peak(record)
        if cap and peak and peak > cap:
            return True
    return False


def _status(records: Sequence[Record]) -> str:
    """Return the last word of the journal: `running` if steps follow the last end."""
    for record in reversed(records):
        if record["kind"] == "end":
            return str(record["status"])
        if record["kind"] in ("step", "resume"):
            break
    return "running"


def _seconds_total(records: Sequence[Record]) -> float:
    """Return the time of all processes of the run; one that was killed counts its steps."""
    total = counted = 0.0
    for record in records:
        if record["kind"] == "end":
            total, counted = total + record["seconds_total"], 0.0
        elif record["kind"] in ("start", "resume"):
            total, counted = total + counted, record.get("seconds", 0.0)
        elif record["kind"] == "step":
            counted += record["seconds"]
    return total + counted


def _eval(start: Record, steps: Sequence[Record]) -> dict[str, Any]:
    first = start.get("eval")
    found = [] if first is None else [(0, first)]
    found += [(r["step"] + 1, r["eval"]) for r in steps if r.get("eval") is not None]
    best_step, best = min(found, key=lambda pair: pair[1], default=(None, None))
    last = found[-1][1] if found else None
    return {"first": first, "best": best, "best_step": best_step, "last": last}


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
