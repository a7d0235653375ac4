"""Train in a run folder: measure the start, repeat the step, save, look, report."""

import gc
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edge_train import __version__
from edge_train.arrays.types import Point
from edge_train.run.ending import write_report
from edge_train.errors import (
    INTERRUPTED,
    EdgeTrainError,
    InputError,
    ModelError,
    OutOfMemory,
    RunFolderError,
    TrainingStopped,
)
from edge_train.run.savings import after_training, next_smaller, words
from edge_train.loop import Loop
from edge_train.memory.guard import Guard
from edge_train.memory.link import Link
from edge_train.memory.measure import give_back_memory, measure
from edge_train.memory.plan import Plan
from edge_train.memory.shortage import bytes_asked, is_shortage, shortage
from edge_train.memory.watch import Watch
from edge_train.optim.transforms import root_mean_square
from edge_train.protocols import StepRecord, Task
from edge_train.recipe import Recipe
from edge_train.records import checkpoint, journal
from edge_train.records.checkpoint import Best
from edge_train.records.history import summarize
from edge_train.records.journal import Journal
from edge_train.records.resume import changed_engine
from edge_train.methods import methods, schedules, selections
from edge_train.optim.basis_choice import choices, summary
from edge_train.runtimes.engine import engines, packages
from edge_train.tasks import task_of
from edge_train.tasks.job import Job, OpenRuntime, Outcome
from edge_train.units import format_bytes

_WANTED_EPSILON = 0.1  # share of a coordinate's rms; see BENCHMARKS.md
class Observer(Protocol):
    """Whoever watches a run: a progress bar or a stream of JSON events."""

    def started(self, first_step: int, steps: int, cap_bytes: int | None) -> None:
        """Training begins at `first_step`."""

    def stepped(self, record: StepRecord, best: tuple[int, float] | None) -> None:
        """A step was taken."""

    def said(self, text: str) -> None:
        """Something worth a line happened."""

    def ended(self, status: str) -> None:
        """The run is over."""


@dataclass
class Session:
    """A run folder with everything that is needed to train in it; `job` has its data.

    `plan` and `choice` (of the method, with its reason) are those of a new run, for its journal.
    """

    folder: Path
    job: Job
    observer: Observer
    began: float
    link: Link
    plan: Plan | None = None
    choice: str = ""


def train(session: Session, records: list[dict[str, Any]], intact: int | None) -> int:
    """Train from the journal's `records` on (none for a new run); return the exit status."""
    job = session.job
    if job.recipe.lean:
        session.link.watch.expect(job.footprint().mapped_bytes)
    with (
        closing(job.open_runtime()) as runtime,
        closing(Journal(session.folder / "journal.jsonl", intact)) as book,
    ):
        loop = _loop(session, runtime, book, records)
        session.observer.started(loop.next_step, job.recipe.steps or 0, job.recipe.cap_bytes)
        try:
            with _stoppable(loop):
                ending = loop.fit(job.recipe.steps or 0)
            status, line = _finish(session, loop, ending)
        except EdgeTrainError as error:
            session.observer.ended("stopped")
            with suppress(RunFolderError):  # the disk may be what stopped it
                _end(loop, session, "stopped", Outcome())
                write_report(session.folder)
            raise TrainingStopped(
                f"{error} {loop.next_step} steps are in {session.folder}; resume with "
                f"`edge-train run --resume {session.folder}`."
            ) from error
        except Exception as error:  # engines have no class in common for memory that is not there
            if not is_shortage(error):
                raise
            raise _out_of_memory(session, loop, error) from None
        finally:
            session.link.watch.adopt(None)
    session.observer.ended(status)
    if line:
        session.observer.said(line)
    _say_what_there_is(session)
    if status == "stopped":
        raise TrainingStopped(
            f"{session.link.watch.short}; stopped with everything saved. {loop.next_step} steps "
            f"are in {session.folder}; resume with `edge-train run --resume {session.folder}`."
        )
    if status == "over cap":
        raise TrainingStopped(
            f"the run held more than its cap; see {session.folder / 'report.html'}. What it "
            "learned is saved. Give it a larger --mem."
        )
    return INTERRUPTED if status == "interrupted" else 0


def _say_what_there_is(session: Session) -> None:
    """Say what the run cost, and name the files that a person wants next."""
    report = summarize(session.folder)
    passes = f"{report['forwards']} forward and {report['backwards']} backward passes"
    held = format_bytes(report["measured_peak_bytes"])
    session.observer.said(f"{passes}, at most {held} held")
    for name in (*report["outputs"].values(), "report.html"):
        session.observer.said(f"  {session.folder / name}")


def _loop(
    session: Session, runtime: OpenRuntime, book: Journal, records: list[dict[str, Any]]
) -> Loop:
    """Return a loop at the end of `records`; a new run first measures where it starts."""
    job, folder = session.job, session.folder
    recipe = job.recipe
    task = job.task()
    if recipe.host_cap_bytes is not None and runtime.device == "cpu":
        raise InputError("--host-mem is for the host beside a GPU; this run is on cpu, use --mem.")
    link = session.link
    _set_to_work(link, recipe, runtime)
    guard = Guard(
        recipe.cap_bytes,
        runtime.device_bytes,
        recipe.host_cap_bytes,
        link.supervisor,
        link.watch.gpu.most if link.watch.gpu is not None else lambda: 0,
    )
    threads = f", {recipe.threads} threads" if recipe.threads else ""
    session.observer.said(
        f"{recipe.method} on {recipe.runtime} ({runtime.device}, {runtime.dtype}, weights "
        f"{recipe.quant}{threads})"
    )
    # who perturbs nothing does not ask, and INT8 blocks would become float32 to be measured
    method = methods.get(recipe.method)
    scale = _scales(runtime.parameters) if method.perturbs else {}
    new = not records
    if new:
        records = [_start_record(session, runtime, task, scale, guard)]
        book.append(records[0], durable=True)
        link.tell(started=True)
    check = records[0]["slope_check"]
    epsilon = check["epsilon"] if check else method.radius(recipe) or 0.0
    estimator, transform = job.method(epsilon, scale)
    loop = Loop(
        runtime=runtime,
        task=task,
        estimator=estimator,
        transform=transform,
        guard=guard,
        journal=book,
        checkpoints=folder / "checkpoints",
        seed=recipe.seed,
        evaluate_every=recipe.evaluate_every or 1,
        patience=recipe.patience or 0,
        observe=lambda record, best: _observe(session, loop, record, best),
        **_choosing(recipe),
    )
    loop.begin(records[0]["eval"])
    if not new:
        steps = [journal.step_record(r) for r in records if r["kind"] == "step"]
        _catch_up(loop, steps, session.observer)
        book.append(
            {
                "kind": "resume",
                "step": loop.next_step,
                "seconds": 0.0,
                "cap_bytes": recipe.cap_bytes,
                "changes": dict(link.changes),
                "reason": link.reason,
                "wall": link.wall,
                **({"plan_peak_bytes": session.plan.peak_bytes} if session.plan else {}),
            }
        )
        if change := changed_engine(
            records[0]["facts"],
            _facts(session, runtime),
            engines.get(recipe.runtime).distributions,
        ):
            session.observer.said(change)
            book.append({"kind": "event", "step": loop.next_step - 1, "text": change})
    return loop


def _choosing(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe names for the loop: a batch selection, a block schedule."""
    found: dict[str, Any] = {}
    if recipe.batch_selection is not None:
        found["selection"] = selections.get(recipe.batch_selection).build(recipe)
    if recipe.block_schedule is not None:
        found["schedule"] = schedules.get(recipe.block_schedule).build(recipe)
    return found


def _set_to_work(link: Link, recipe: Recipe, runtime: OpenRuntime) -> None:
    """Tell the watch what it guards, now that it is known where the model runs."""
    cap_bytes = recipe.cap_bytes if runtime.device == "cpu" else recipe.host_cap_bytes
    if cap_bytes is not None:
        link.watch.enforce(cap_bytes, wall=link.supervisor is not None)
    if not runtime.device.startswith("cuda"):
        link.watch.gpu = None
    link.watch.adopt(getattr(runtime, "pages", None))
    if recipe.batch_limit is not None:
        runtime.batch_limit = recipe.batch_limit


def _scales(parameters: Point) -> dict[str, float]:
    """Return the root mean square of every block; that of the smallest other one for zeros."""
    scales = {name: root_mean_square(block) for name, block in parameters.items()}
    smallest = min((scale for scale in scales.values() if scale), default=1.0)
    return {name: scale or smallest for name, scale in scales.items()}


def _observe(session: Session, loop: Loop, record: StepRecord, best: Best) -> None:
    session.observer.stepped(record, (best.step, best.loss))
    if record.skipped:
        session.observer.said(f"step {record.step}: {record.skipped}; rolled back")
    _heed(session, loop, record.step)
    text = session.job.preview(session.folder, record.step + 1, loop.runtime)
    if text is not None:
        loop.journal.append({"kind": "event", "step": record.step, "text": text})


def _heed(session: Session, loop: Loop, step: int) -> None:
    """Do between two steps what the watch asked for during one; keep what it saw."""
    watch = session.link.watch
    for line in watch.drain(step):
        loop.journal.append(line)
        if "text" in line:
            session.observer.said(line["text"])
    if watch.wants_less and loop.runtime.batch_limit != 1:
        watch.wants_less, loop.runtime.batch_limit = False, 1
        changes = {"batch_limit": 1}
        smaller = words(task_of(session.job.recipe), changes)
        text = f"memory: close to the cap; from here on {smaller}"
        loop.journal.append({"kind": "event", "step": step, "text": text, "changes": changes})
        session.observer.said(text)
    if watch.short and not loop.stop_requested:
        session.observer.said(f"{watch.short}; saving and stopping")
        loop.stop_requested = True


def _out_of_memory(session: Session, loop: Loop, error: Exception) -> OutOfMemory:
    """Note in the journal that an allocation failed; return the error for the supervisor."""
    session.link.watch.spend_reserve()
    traceback.clear_frames(error.__traceback__)
    held = measure(session.link.supervisor).resident_bytes
    cap_bytes = session.job.recipe.cap_bytes
    text = f"step {loop.next_step}: {shortage(error, held)}"
    least = max(held + bytes_asked(error), cap_bytes or 0)
    session.link.watch.note(f"out of memory: {text}")
    gc.collect()
    give_back_memory()
    smaller = next_smaller(session.job.recipe)
    with suppress(RunFolderError):
        if session.link.supervisor is None or not smaller:
            _end(loop, session, "stopped", Outcome())
        else:
            for line in session.link.watch.drain(loop.next_step, last=True):
                loop.journal.append(line, durable=True)
    if session.link.supervisor is None:
        text += f". Its steps are in {session.folder}; resume with a larger --mem"
    return OutOfMemory(text, least)


def _start_record(
    session: Session, runtime: OpenRuntime, task: Task, scale: Mapping[str, float], guard: Guard
) -> dict[str, Any]:
    """Check slopes, evaluate the start values; return the first record of the journal."""
    recipe, job = session.job.recipe, session.job
    evaluation = task.evaluation()
    losses = task.loss(runtime, evaluation, [runtime.parameters])
    forwards, check = losses.size, None
    if not np.isfinite(losses).all():
        raise ModelError(
            f"{recipe.model}: its loss is not finite before the first step; the weights are "
            "damaged or --dtype is too small for them."
        )
    repeats = "not checked"
    if not engines.get(recipe.runtime).exact_repeats:
        from edge_train.estimators.slope_check import repeats_itself

        forwards += 2
        if repeats_itself(runtime, task, {n: v[:1] for n, v in evaluation.items()}):
            repeats = "bit for bit"
        else:
            repeats = "not bit for bit"
            session.observer.said(
                f"device {runtime.device} does not repeat itself bit for bit; a run that is "
                "resumed will not end with the same bits as an undisturbed one"
            )
    method = methods.get(recipe.method)
    if method.perturbs and method.radius(recipe) is None:
        from edge_train.estimators.slope_check import SAMPLES, check_slopes

        some = {name: values[:SAMPLES] for name, values in evaluation.items()}
        smallest = job.smallest_radius()
        check = check_slopes(runtime, task, some, scale, recipe.seed, _WANTED_EPSILON, smallest)
        forwards += check.forwards
        session.observer.said(check.sentence())
    try:
        usage = guard.check(0)
    except TrainingStopped as error:  # nothing was trained yet
        raise InputError(str(error)) from error
    return {
        "kind": "start",
        "version": journal.FORMAT_VERSION,
        "facts": {
            **_facts(session, runtime),
            "repeats": repeats,
            **job.facts(session.folder),
        },
        "slope_check": check.record() if check else None,
        "eval": float(losses.astype(np.float64).mean()),
        "forwards": forwards,
        "seconds": time.perf_counter() - session.began,
        "peak_bytes": usage.peak_bytes,
    }


def _facts(session: Session, runtime: OpenRuntime) -> dict[str, Any]:
    recipe = session.job.recipe
    return {
        "task": recipe.task,
        "method": recipe.method,
        "preset": recipe.preset,
        "runtime": recipe.runtime,
        "device": runtime.device,
        "dtype": runtime.dtype,
        "quant": recipe.quant,
        "model": recipe.model,
        "model_sha256": session.job.model_sha256,
        "seed": recipe.seed,
        "threads": recipe.threads,
        "lean": recipe.lean,
        "cap_bytes": recipe.cap_bytes,
        "plan_peak_bytes": session.plan.peak_bytes if session.plan else None,
        "plan_source": session.plan.source if session.plan else None,
        "choice": session.choice,
        "wall": session.link.wall,
        "smaller": dict(session.link.changes),
        "versions": _versions(),
        "steps_planned": recipe.steps,
    }


def _versions() -> dict[str, str]:
    found = {"edge-train": __version__}
    for package in packages():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _catch_up(loop: Loop, steps: list[StepRecord], observer: Observer) -> None:
    """Bring a loop to the end of its journal: newest checkpoint, then redo what came after."""
    snapshot, complaints = checkpoint.load_newest(loop.checkpoints, at_most=len(steps))
    for complaint in complaints:
        observer.said(f"{complaint} Using an older checkpoint and the journal.")
    if snapshot is None:
        loop.restore(loop.snapshot(), steps)
    else:
        loop.evals += [r.eval for r in steps[: snapshot.step] if r.eval is not None]
        loop.restore(snapshot, steps[snapshot.step :])
    observer.said(f"resumed after step {loop.next_step - 1}")


@contextmanager
def _stoppable(loop: Loop) -> Iterator[None]:
    """Let Ctrl-C and a polite kill stop the loop after the step in progress; twice is at once."""

    def stop(*_: object) -> None:
        if loop.stop_requested:
            raise KeyboardInterrupt
        loop.stop_requested = True

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _finish(session: Session, loop: Loop, ending: str) -> tuple[str, str | None]:
    """Save and score what was learned, write the report; return status and a line for people."""
    job, folder = session.job, session.folder
    if ending == "settled":
        text = f"the evaluation settled after {loop.next_step} of {job.recipe.steps} steps"
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
    early = "stopped" if session.link.watch.short else "interrupted"
    status = _end(loop, session, "done" if whole else early, outcome)
    write_report(folder)
    return status, outcome.line


def _end(loop: Loop, session: Session, status: str, outcome: Outcome) -> str:
    """Write the last record; return the status, which is `over cap` when memory says so."""
    watch = session.link.watch
    for line in watch.drain(loop.next_step, last=True):
        loop.journal.append(line)
    usage = loop.guard.usage()
    cap = loop.guard.cap_bytes
    if cap is not None and usage.peak_bytes > cap:
        status = "over cap"
    loop.journal.append(
        {
            "kind": "end",
            "status": status,
            "step": loop.next_step,
            "best_step": loop.best.step,
            "metrics": dict(outcome.metrics),
            "outputs": dict(outcome.outputs),
            "measured_peak_bytes": usage.peak_bytes,
            "measured_anon_bytes": max(usage.anon_bytes, watch.anon_peak_bytes),
            **_weights(loop.runtime, watch),
            "seconds_total": time.perf_counter() - session.began,
        },
        durable=True,
    )
    return status


def _weights(runtime: Any, watch: Watch) -> dict[str, int]:
    """Return the size of weights that stay in their file, and how often all of it was passed."""
    pages = getattr(runtime, "pages", None)
    if pages is None:
        return {}
    return {
        "weights_bytes": pages.bytes,
        "weights_reread_bytes": watch.released_bytes,
        "weights_order": pages.order,
        "weights_passes": runtime.passes,
        "weights_evaluations": runtime.evaluations,
    }
