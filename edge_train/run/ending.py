"""The report of a run, written whole or not at all."""

import json
import math
import time
from pathlib import Path
from typing import Any

from edge_train.errors import EdgeTrainError, NonFinite, TrainingStopped
from edge_train.formats.atomic import write_bytes
from edge_train.loop import Loop
from edge_train.memory.shortage import is_shortage
from edge_train.memory.watch import Watch
from edge_train.optim.basis_choice import choices, summary
from edge_train.records.folder import RunFolder
from edge_train.records.history import read_records, summary_of
from edge_train.records.results import hashes_of
from edge_train.registry import load
from edge_train.report.section import Section, sections
from edge_train.run.savings import after_training
from edge_train.run.start import Session
from edge_train.tasks import tasks
from edge_train.tasks.job import Outcome
from edge_train.tasks.task import Task


def write_report(run: Path) -> Path:
    """Write `report.json` and `report.html` into a run folder; return the path of the page.

    The run may be unfinished: the report says so. Each file is replaced whole or not at all.

    Raises:
      RunFolderError: `run` has no journal, nothing was trained yet, or it cannot be written.
    """
    from edge_train.report.page import render  # with Jinja2, which training does not need

    records = read_records(run)
    summary = summary_of(records)
    page = RunFolder(run).page
    write_bytes(RunFolder(run).report, (json.dumps(summary, indent=2) + "\n").encode())
    facts = records[0]["facts"]
    name = facts.get("task", "")
    task = tasks.all().get(name)  # of a package that may be gone by now
    title = task.title(facts) if task else f"Run: {name}"
    if facts.get("device") == "fleet":  # its server knows no data and no model
        title = f"A fleet: {task.says if task else name}"
    usable, broken = _sections_of(task, name)
    html = render(run, summary, records, title, usable, broken)
    write_bytes(page, html.encode("utf-8", "replace"))  # names of files may be no Unicode at all
    return page


def _sections_of(task: Task | None, name: str) -> tuple[list[Section], dict[str, str]]:
    """Return what a task and packages add to a report, and why some of it cannot be loaded.

    Args:
      task: None for one of a package that is gone.
      name: of the task, as the journal has it.
    """
    found: list[object] = []
    broken = dict(sections.broken())
    if task is not None and task.sections is not None:
        try:
            found += load(task.sections)()
        except Exception as error:
            if is_shortage(error):
                raise
            broken[task.sections] = f"{type(error).__name__}: {error}"
    usable = []
    for one in [*found, *sections.all().values()]:
        if not isinstance(one, Section):
            broken[str(getattr(one, "name", one))] = "it is not a Section"
        elif one.task in (None, name):
            usable.append(one)
    return usable, broken


def finish_run(session: Session, loop: Loop, ending: str) -> tuple[str, str | None]:
    """Save and score what was learned, write the report; return status and a line for people."""
    job, folder = session.job, session.folder
    if ending == "settled":
        text = f"the evaluation settled after {loop.next_step} of {job.recipe.steps} steps"
        session.observer.said(text)
        loop.journal.append({"kind": "event", "step": loop.next_step - 1, "text": text})
    ended_by_time = session.timing is not None and session.timing.is_over(loop, ending)
    if session.timing is not None and ended_by_time:
        text = session.timing.sentence(loop)
        session.observer.said(text)
        loop.journal.append({"kind": "event", "step": loop.next_step - 1, "text": text})
    if session.settling is not None and (text := session.settling.sentence(loop) or ""):
        session.observer.said(text)
        loop.journal.append({"kind": "event", "step": loop.next_step - 1, "text": text})
    if bases := choices(loop.state):
        text = summary(bases)
        session.observer.said(text)
        event = {"kind": "event", "step": loop.next_step - 1, "text": text, "bases": bases}
        loop.journal.append(event)
    if job.recipe.batch_limit is not None:  # what remains are pictures; only theirs can go
        session.link.tell(smaller=after_training(job.recipe))
    whole, best = ending != "interrupted", loop.best
    outcome = job.finish(folder, loop.runtime, best.parameters, best.step, whole)
    _check_scores(outcome)
    if outcome.missing is not None:
        session.observer.said(outcome.missing)
        event = {"kind": "event", "step": loop.next_step - 1, "text": outcome.missing}
        loop.journal.append(event)
    early = "stopped" if session.stopped_for else "interrupted"
    status = end_run(loop, session, "done" if whole else early, outcome, by_time=ended_by_time)
    write_report(folder)
    return status, outcome.line


def save_best(session: Session, loop: Loop) -> Outcome:
    """Write the best of a run that cannot go on: going on may end alike, and this is learned.

    Nothing where nothing was learned, or where what stopped the run stops this, too.
    """
    best, folder = loop.best, session.folder
    if not best.step or not folder.is_dir():
        return Outcome()
    try:
        return session.job.finish(folder, loop.runtime, best.parameters, best.step, False)
    except Exception as error:
        if isinstance(error, (EdgeTrainError, OSError, NonFinite)) or is_shortage(error):
            return Outcome()
        raise


def _check_scores(outcome: Outcome) -> None:
    """Refuse scores that are no numbers, which no reader of a journal or a report could use.

    Raises:
      TrainingStopped: one is infinite, or not a number.
    """
    for name, value in outcome.metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise TrainingStopped(
                f"the score {name!r} of the best parameters is {value}; try a smaller "
                "--learning-rate."
            )


def end_run(
    loop: Loop, session: Session, status: str, outcome: Outcome, *, by_time: bool = False
) -> str:
    """Write the last record; return the status, which is `over cap` when memory says so.

    Args:
      by_time: the run ended because its time did.
    """
    watch = session.link.watch
    for line in watch.drain(loop.next_step, last=True):
        loop.journal.append(line)
    usage = loop.guard.usage()
    cap = loop.guard.cap_bytes
    # of results to keep; those of a run that was stopped are written again
    hashes = hashes_of(session.folder, outcome.outputs.values()) if status == "done" else {}
    if cap is not None and usage.peak_bytes > cap:
        status = "over cap"
    loop.journal.append(
        {
            "kind": "end",
            "status": status,
            "step": loop.next_step,
            "history": loop.history,
            "best_step": loop.best.step,
            "metrics": dict(outcome.metrics),
            "outputs": dict(outcome.outputs),
            "sha256": hashes,
            "measured_peak_bytes": usage.peak_bytes,
            "measured_anon_bytes": max(usage.anon_bytes, watch.anon_peak_bytes),
            **_weights(loop.runtime, watch),
            **({"ended_by": "time"} if by_time else {}),
            **_energy(session),
            "seconds_total": time.perf_counter() - session.began,
        },
        durable=True,
    )
    return status


def _energy(session: Session) -> dict[str, Any]:
    """Return the joules of this process, where a counter of them can be read."""
    joules = session.meter.joules() if session.meter is not None else None
    if session.meter is None or joules is None:
        return {}
    return {"joules": joules, "joules_from": session.meter.name}


def _weights(runtime: Any, watch: Watch) -> dict[str, int]:
    """Return the size of weights that stay in their file, and how often all of it was passed."""
    pages = runtime.pages
    if pages is None:
        return {}
    return {
        "weights_bytes": pages.bytes,
        "weights_reread_bytes": watch.released_bytes,
        "weights_order": pages.order,
        "weights_passes": runtime.passes,
        "weights_evaluations": runtime.evaluations,
    }
