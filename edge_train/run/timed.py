"""The timing of a run that begins or goes on: what was timed by now, and what its journal says."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from edge_train.loop import Loop
from edge_train.protocols import Transform
from edge_train.recipe import required
from edge_train.records.longer import length_of
from edge_train.run.ending import write_report
from edge_train.run.observer import FollowsLength
from edge_train.run.pace import work_of
from edge_train.run.start import Session
from edge_train.run.timing import Timing, timed_by, used_before

_NEWEST = 32  # steps of a journal that tell the pace of those that follow


def open_timing(
    session: Session,
    loop: Loop,
    records: Sequence[Mapping[str, Any]],
    save_seconds: float,
    rule: Callable[[tuple[tuple[int, int], ...]], Transform],
) -> Timing:
    """Return the timing of a run at the end of its journal.

    Args:
      save_seconds: that the first checkpoint took.
      rule: makes the update rule for these fits.
    """
    recipe, is_new = session.job.recipe, loop.next_step == 0
    spent = session.expected.before if session.expected else time.perf_counter() - session.began
    length, watcher = length_of(records), session.observer
    if is_new and session.expected is not None:
        evaluation = session.expected.evaluation_seconds
    else:
        evaluation = _timed_evaluation(loop)
    found = timed_by(_work(session), evaluation, save_seconds, spent)
    steps = [r["seconds"] for r in records if r["kind"] == "step"][-_NEWEST:]
    return Timing(
        seconds=required(recipe.time_seconds),
        used=0.0 if session.expected is not None else used_before(records),
        began=session.began,
        asked=recipe.steps or 0,
        found=found,
        every=recipe.evaluate_every or 1,
        step=median(steps) if steps else found.step,  # evaluations are part of neither
        fits=length.fits,
        updates=sum(r["kind"] == "step" and r.get("skipped") is None for r in records),
        report=lambda: write_report(session.folder),
        rule=rule,
        say=session.observer.said,
        tell=watcher.fitted if isinstance(watcher, FollowsLength) else lambda steps: None,
    )


def _work(session: Session) -> Mapping[str, float]:
    """Return what the run computes: by its plan, or counted again."""
    if session.plan is not None and session.plan.work is not None:
        return session.plan.work
    return work_of(session.job.recipe, session.job.footprint())


def _timed_evaluation(loop: Loop) -> float:
    began = time.perf_counter()
    with np.errstate(over="ignore", invalid="ignore"):
        loop.task.loss(loop.runtime, loop.task.evaluation(), [loop.runtime.parameters])
    return time.perf_counter() - began
