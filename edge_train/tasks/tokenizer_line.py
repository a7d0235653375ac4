"""The tokenizer in a plan: what it holds in every phase, and what it took to open it."""

from dataclasses import replace

from edge_train.formats.tokenizer_size import TokenizerSize
from edge_train.memory.footprint import PREPARE, Footprint, PlanLine, lines_of

_BARE_BYTES = 70_000_000  # interpreters with NumPy, which are there when a job is opened


def with_tokenizer(footprint: Footprint, size: TokenizerSize) -> Footprint:
    """Return a footprint with the line of a tokenizer that its job opens and keeps.

    A large one takes several times as much while it is opened. What that is more than the line
    belongs to the first phase, less the code of an engine, which is loaded later.
    """
    line = PlanLine("tokenizer", size.held_bytes)
    later = max(0, footprint.libraries_bytes - _BARE_BYTES) + footprint.first_use_bytes
    opening = max(0, size.opening_bytes - size.held_bytes - later)
    prepares = max(footprint.workspace.get(PREPARE, 0), opening)
    return replace(
        footprint,
        known={phase: lines_of(line, *lines) for phase, lines in footprint.known.items()},
        workspace={**footprint.workspace, PREPARE: prepares},
        job_bytes=footprint.job_bytes + line.bytes,
    )
