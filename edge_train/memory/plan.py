"""The bytes a run will hold, line by line and phase by phase, before its first step.

A run prepares (photos through the VAE, texts to tokens), trains, then saves and draws. What one
phase lets go of the next one does not pay for, so the peak is that of the largest phase. Two ways
lead to a plan. A *rehearsal* (`rehearsal.py`) runs all phases once, with two steps, and measures
them. An *estimate* knows the libraries as they were measured and what the job says of the rest
(`footprint.py`); it is what large models get, which are never loaded just to plan, and what tells
whether a rehearsal is needed at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

from edge_train.memory.footprint import SAVE, Footprint, PlanLine
from edge_train.memory.measure import give_back_memory, measure
from edge_train.units import format_bytes

# Weight files above this are never loaded to plan; below it a rehearsal takes seconds.
LARGE_BYTES = 400_000_000
# What an estimate may be off by: a cap this many times larger needs no rehearsal; a large model
# whose estimate, times the second, is above the cap is refused without trying.
NEAR = 3.0
_CERTAIN_SHARE = 0.8


@dataclass(frozen=True)
class Phase:
    """What is held at once; lines add up."""

    name: str
    lines: tuple[PlanLine, ...]

    @property
    def bytes(self) -> int:
        """The sum of the lines."""
        return sum(line.bytes for line in self.lines)


@dataclass(frozen=True)
class Plan:
    """A predicted run.

    Attributes:
      source: `rehearsal` where every phase was measured, `estimate` where it was computed.
      seconds_per_step: of a step of training, None where it was not measured.
      folder: what the run folder will hold on disk, beside its journal and report.
      work: what the run computes, as `run/pace.py` counts it; None where nobody counted.
    """

    phases: tuple[Phase, ...]
    source: str
    seconds_per_step: float | None = None
    folder: tuple[PlanLine, ...] = ()
    work: Mapping[str, float] | None = None

    @property
    def peak_bytes(self) -> int:
        """The largest phase: what the cap has to hold."""
        return max(phase.bytes for phase in self.phases)

    @property
    def largest(self) -> tuple[PlanLine, ...]:
        """The two largest lines of the largest phase."""
        phase = max(self.phases, key=lambda phase: phase.bytes)
        return tuple(sorted(phase.lines, key=lambda line: -line.bytes)[:2])

    def record(self) -> dict[str, Any]:
        """Return plain values for `plan.json`."""
        phases = [{**asdict(phase), "bytes": phase.bytes} for phase in self.phases]
        return {
            "version": 1,
            "peak_bytes": self.peak_bytes,
            "source": self.source,
            "seconds_per_step": self.seconds_per_step,
            "phases": phases,
            "folder": [asdict(line) for line in self.folder],
            "work": None if self.work is None else dict(self.work),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Plan":
        """Return the plan that `record` was made of."""
        phases = tuple(
            Phase(phase["name"], tuple(PlanLine(**line) for line in phase["lines"]))
            for phase in record["phases"]
        )
        folder = tuple(PlanLine(**line) for line in record.get("folder", ()))
        work = record.get("work")
        return cls(phases, record["source"], record["seconds_per_step"], folder, work)

    def text(self) -> str:
        """Return every line of every phase, for people.

        >>> print(Plan((Phase("train", (PlanLine("weights", 2_000_000),)),), "estimate").text())
        train                                     2 MB
          weights                                 2 MB
        peak, the largest phase                   2 MB  (estimate)
        """
        rows = []
        for phase in self.phases:
            rows.append(f"{phase.name:<34}{format_bytes(phase.bytes):>12}")
            rows += [f"  {line.name:<32}{format_bytes(line.bytes):>12}" for line in phase.lines]
        peak = format_bytes(self.peak_bytes)
        rows.append(f"{'peak, the largest phase':<34}{peak:>12}  ({self.source})")
        return "\n".join(rows)


def needs(plan: Plan, cap_bytes: int) -> str:
    """Return the first two sentences of a refusal.

    >>> plan = Plan((Phase("train", (PlanLine("weights", 2 * 10**9),)),), "estimate")
    >>> needs(plan, 10**9)
    'plan needs 2 GB, cap is 1 GB (--mem 1GB). Largest: weights 2 GB.'
    """
    largest = ", ".join(f"{line.name} {format_bytes(line.bytes)}" for line in plan.largest)
    cap = format_bytes(cap_bytes)
    return (
        f"plan needs {format_bytes(plan.peak_bytes)}, cap is {cap} "
        f"(--mem {cap.replace(' ', '')}). Largest: {largest}."
    )


def load_libraries(libraries: Sequence[str]) -> int:
    """Import what a run will import; return the resident bytes of this process tree after it."""
    for name in libraries:
        import_module(name)
    give_back_memory()  # what was read to make the footprint
    return measure().resident_bytes


def with_remainder(name: str, peak_bytes: int, lines: Sequence[PlanLine]) -> Phase:
    """Return a phase of a measured peak: known lines, and activations as what they leave.

    Weights that were let go, or stay in a file nobody read, cannot be held: what is more than the
    peak is taken off the last line.

    >>> known = [PlanLine("a", 4), PlanLine("b", 9)]
    >>> [line.bytes for line in with_remainder("train", 10, known).lines]
    [4, 6, 0]
    """
    kept, left = [], peak_bytes
    for line in lines:
        kept.append(replace(line, bytes=min(line.bytes, left)))
        left -= kept[-1].bytes
    return Phase(name, (*kept, PlanLine("activations and workspace", left)))


def known_lines(footprint: Footprint, base_bytes: int) -> dict[str, list[PlanLine]]:
    """Return, by phase, every line but the activations: what headers and shapes tell.

    Args:
      base_bytes: interpreter, supervisor and libraries, measured.
    """
    base = PlanLine("interpreter and libraries", base_bytes)
    return {name: [base, *lines] for name, lines in footprint.known.items()}


def estimate(footprint: Footprint, base_bytes: int) -> Plan:
    """Return a plan without loading the model.

    Args:
      base_bytes: interpreter, supervisor and libraries, measured.
    """
    phases = []
    first = PlanLine("engine at its first pass", footprint.first_use_bytes)
    for name, known in known_lines(footprint, base_bytes).items():
        workspace = footprint.workspace.get(name, 0)
        if name == SAVE and not workspace:
            continue
        phases.append(
            Phase(name, (*known, first, PlanLine("activations and workspace", workspace)))
        )
    return Plan(tuple(phases), "estimate", folder=footprint.folder)


def surely_above(plan: Plan, cap_bytes: int) -> bool:
    """Return whether a cap cannot hold a run, whatever the estimate is off by."""
    return plan.peak_bytes * _CERTAIN_SHARE > cap_bytes


def is_too_large(plan: Plan, cap_bytes: int, model_bytes: int) -> bool:
    """Return whether a run refuses to start on an estimate, and tries something smaller.

    A large model is never rehearsed, so only what is sure is refused before it tries.

    Args:
      model_bytes: of its weights, as they lie in files.
    """
    if model_bytes > LARGE_BYTES:
        return surely_above(plan, cap_bytes)
    return plan.peak_bytes > cap_bytes


def is_far(plan: Plan, cap_bytes: int | None) -> bool:
    """Return whether a cap is so large that it does not matter what exactly is held."""
    return cap_bytes is None or plan.peak_bytes * NEAR <= cap_bytes
