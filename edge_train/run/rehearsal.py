"""A run in small, to measure what the real one will hold: every phase once, two steps, no traces.

The same code as a run, on the same photos or texts and in a folder that goes away: preparing,
opening the model, the slope check, an evaluation, two steps, a checkpoint, the last files, and as
many pictures as at the end, each denoised once. What is held does not depend on how often a thing
is done, so nothing is left to guess but what the allocator makes of a long run. So it is bounded by
passes and not by a clock, which would end it at another place on a busy machine: a job that can
(`JudgesLess`) judges one call of samples, where its run judges a hundred times as many.
"""

import json
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from edge_train.errors import (
    INTERRUPTED,
    EdgeTrainError,
    InputError,
    OutOfMemory,
    RunFolderError,
    TrainingStopped,
)
from edge_train.formats.tensor_store import warm_up
from edge_train.memory.apart import run_apart
from edge_train.memory.link import ENVIRONMENT, Link
from edge_train.memory.measure import measure
from edge_train.memory.plan import Plan, known_lines, load_libraries, with_remainder
from edge_train.memory.watch import Watch
from edge_train.process import interrupts
from edge_train.protocols import StepRecord
from edge_train.recipe import Recipe, as_mapping, with_absolute_paths
from edge_train.records.folder import RunFolder
from edge_train.run.scratch import in_use, scratch
from edge_train.run.start import Session
from edge_train.run.training import train
from edge_train.tasks import open_job, recipe_of, task_of
from edge_train.tasks.job import JudgesLess

_STEPS = 2
WHAT = "two steps, and what is judged and written once"

# With every module that a worker has by then: a megabyte, which counts in small runs.
_WORDS = "import edge_train.cli.options, edge_train.cli.verbs; "
_REHEARSAL = (
    f"{_WORDS}import edge_train.worker, edge_train.run.session; "
    "from edge_train.run.rehearsal import main; sys.exit(main())"
)


class _Peaks:
    """An `Observer` that notes the most that was held in each phase."""

    def __init__(self, root: int | None, steps: int) -> None:
        self._root, self._steps = root, steps
        self.bytes: dict[str, int] = {}
        self.seconds_per_step = 0.0

    def close(self, phase: str) -> None:
        """The phase in progress is over; forget its peak."""
        self.bytes[phase] = measure(self._root).peak_bytes
        with suppress(OSError):  # then a later phase's peak is at least that of the earlier ones
            Path("/proc/self/clear_refs").write_text("5")

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Do nothing."""

    def stepped(self, record: StepRecord, best: tuple[int, float] | None) -> None:
        """Close the phase of training after the last step."""
        if record.step == 0:  # the last one has an evaluation in it; loading is long over
            self.seconds_per_step = record.seconds
        if record.step + 1 == self._steps:
            self.close("train")

    def said(self, text: str) -> None:
        """Do nothing: the run will say it."""

    def ended(self, status: str) -> None:
        """Do nothing."""


def rehearse(recipe: Recipe, link: Link, folder: Path, others_bytes: int = 0) -> Plan:
    """Return the measured plan of a recipe; call it in a process that does nothing else.

    Args:
      link: its watch guards this process, its supervisor's bytes are counted.
      folder: to rehearse in, an empty one; see `scratch.py`.
      others_bytes: what a supervisor will hold, where there is none yet.

    Raises:
      OutOfMemory: under a wall, where a phase did not fit.
      EdgeTrainError: the run itself would be refused.
    """
    job = open_job(_rehearsal_recipe(recipe))
    own = Link(link.watch, link.supervisor, link.wall, link.changes)  # nobody is told of it
    if isinstance(job, JudgesLess):
        job.judge_less()
    footprint = job.footprint()
    load_libraries(footprint.libraries)
    base_bytes = measure(link.supervisor).resident_bytes - footprint.job_bytes
    peaks = _Peaks(link.supervisor, job.recipe.steps or 0)
    job.load()
    _make_parts(folder)
    with link.watch.loading(task_of(recipe).loads):
        job.prepare(folder, peaks.said)
    peaks.close("prepare")
    try:
        status = train(Session(folder, job, peaks, time.perf_counter(), own), [], None)
    except OutOfMemory:
        raise
    except TrainingStopped as error:  # its folder goes away, so nothing can be resumed
        cause = str(error.__cause__ or error)
        if isinstance(error.__cause__, RunFolderError):
            cause += " Set TMPDIR to a folder on another disk."
        raise InputError(f"the run cannot be rehearsed in {folder}: {cause}") from error
    if status == INTERRUPTED:  # it has saved, and nobody wants that
        signal.raise_signal(signal.SIGINT)
    peaks.close("save and draw")
    lines = known_lines(footprint, base_bytes + others_bytes)
    phases = (with_remainder(name, peaks.bytes[name] + others_bytes, lines[name]) for name in lines)
    return Plan(tuple(phases), "rehearsal", peaks.seconds_per_step, footprint.folder)


def _make_parts(folder: Path) -> None:
    try:
        RunFolder(folder).make()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made to rehearse in ({error.strerror}); set TMPDIR to a folder "
            "on another disk."
        ) from error


def _rehearsal_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe of few steps, too few to warm up in, that holds what the whole run will."""
    small = replace(recipe, steps=_STEPS, warmup=0, patience=0, time_seconds=None, when=None)
    return task_of(recipe).for_rehearsal(small)


def rehearse_apart(recipe: Recipe) -> Plan:
    """Return the measured plan of a recipe, from a fresh process and without a cap.

    Raises:
      InputError: the run would be refused, in the words of that refusal.
    """
    free = replace(with_absolute_paths(recipe), cap_bytes=None, host_cap_bytes=None, out=None)
    keys = {"task": free.task, **as_mapping(free), **free.options}
    del keys["options"]
    keys = {name: value for name, value in keys.items() if value is not None}
    given = {"recipe": keys, "others_bytes": _supervisor_bytes()}
    with scratch() as folder:
        text = json.dumps({**given, "folder": str(folder)})
        done = run_apart(_REHEARSAL, text=text, environment=ENVIRONMENT)
    if done.returncode in (INTERRUPTED, *(-number for number in interrupts.STOPPING)):
        signal.raise_signal(signal.SIGINT)  # a terminal sends it to both, this one may be later
    if done.returncode == -signal.SIGKILL:
        raise InputError(
            "the rehearsal of this run was killed, as happens when memory runs out; stop other "
            "programs, or run it with a --mem, under which it is estimated first."
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise InputError(last)
    return Plan.from_record(json.loads(done.stdout))


@cache
def _supervisor_bytes() -> int:
    """Return what the parent of a run holds while it waits."""
    script = (
        "import edge_train.entry; "
        "from edge_train.memory.supervisor import _own_bytes; print(_own_bytes())"
    )
    return int(run_apart(script, environment=ENVIRONMENT).stdout or 0)


def main() -> int:
    """Rehearse the recipe on standard input; write the plan's record to standard output."""
    interrupts.listen(words="")
    given: dict[str, Any] = json.loads(sys.stdin.read())
    warm_up()
    watch = Watch(None).start()
    try:
        recipe, folder = recipe_of(given["recipe"], "plan"), Path(given["folder"])
        with in_use(folder):  # it outlives who started it, if that one is killed
            plan = rehearse(recipe, Link(watch), folder, given["others_bytes"])
    except EdgeTrainError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    finally:
        watch.stop()
    print(json.dumps(plan.record()))
    return 0
