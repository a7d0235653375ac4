"""Train in a run folder: measure the start, repeat the step, save, look, report."""

import gc
import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any

from edge_train.errors import (
    INTERRUPTED,
    MISSED,
    EdgeTrainError,
    InputError,
    NonFinite,
    OutOfMemory,
    RunFolderError,
    TrainingStopped,
)
from edge_train.estimators.alone import Alone
from edge_train.loop import Loop
from edge_train.memory.guard import Guard
from edge_train.memory.link import Link
from edge_train.memory.measure import give_back_memory, measure
from edge_train.memory.shortage import bytes_asked, is_shortage, lost_card, shortage
from edge_train.methods import methods, schedules, selections
from edge_train.methods.exact import ClipKeys, ends_by_noise
from edge_train.optim.transforms import LearningRate
from edge_train.power.energy import Meter, open_counter
from edge_train.process.interrupts import STOPPING
from edge_train.protocols import Objective, StepRecord, Transform
from edge_train.recipe import Recipe, required
from edge_train.records import journal
from edge_train.records.checkpoint import Best
from edge_train.records.folder import RunFolder
from edge_train.records.history import summarize
from edge_train.records.journal import Journal
from edge_train.records.longer import length_of
from edge_train.records.resume import changed_engine
from edge_train.run.card import stopped_by_card
from edge_train.run.conditions import conditions_of
from edge_train.run.ending import end_run, finish_run, save_best, write_report
from edge_train.run.observer import Placed
from edge_train.run.pace import in_words
from edge_train.run.savings import next_smaller, words
from edge_train.run.settling import open_settling
from edge_train.run.start import Session, facts_of, scales_of, start_record
from edge_train.run.timed import open_timing
from edge_train.runtimes.engine import engines
from edge_train.runtimes.threads import Threaded, choose
from edge_train.tasks import task_of
from edge_train.tasks.job import FitsATime, HasCard, Job, OpenRuntime, Outcome
from edge_train.units import format_bytes

_LONG_PASS_SECONDS = 0.5  # of one sample; then one sample is enough to time


def train(session: Session, records: Sequence[Mapping[str, Any]], intact: int | None) -> int:
    """Train from the journal's `records` on (none for a new run); return the exit status."""
    job = session.job
    if job.recipe.lean:
        session.link.watch.expect(job.footprint().mapped_bytes)
    with (
        closing(job.open_runtime()) as runtime,
        closing(Journal(RunFolder(session.folder).journal, intact)) as book,
        closing(Meter(open_counter()[0])) as meter,
    ):
        session.meter, session.conditions = meter, conditions_of(job.recipe)
        loop = _loop(session, runtime, book, records)
        if isinstance(session.observer, Placed):
            session.observer.placed(session.folder, loop.next_step, partial(_rate, loop))
        try:
            with _stoppable(loop):
                loop.steps = job.recipe.steps or 0
                if session.settling is not None:
                    session.settling.start(loop)
                if session.timing is not None:
                    session.timing.start(loop)
                session.observer.started(loop.next_step, loop.steps, job.recipe.cap_bytes)
                ending = loop.fit(loop.steps)
            status, line = finish_run(session, loop, ending)
        except (EdgeTrainError, OSError, NonFinite) as caught:
            error = _in_words(caught)
            session.observer.ended("stopped")
            learned = save_best(session, loop)
            with suppress(RunFolderError):  # the disk may be what stopped it
                end_run(loop, session, "stopped", learned)
                write_report(session.folder)
            if not session.folder.is_dir():
                raise TrainingStopped(
                    f"{error} {session.folder} was removed, and every step with it; start again."
                ) from error
            also = ", and the best weights of them," if learned.outputs else ""
            raise TrainingStopped(
                f"{error} {loop.next_step} steps{also} are in {session.folder}; resume with "
                f"`edge-train run --resume {session.folder}`."
            ) from error
        except Exception as error:  # engines have no class in common for memory that is not there
            if reason := lost_card(error):
                session.observer.ended("stopped")
                with suppress(RunFolderError):
                    end_run(loop, session, "stopped", Outcome())
                    write_report(session.folder)
                raise stopped_by_card(reason, loop.next_step, session.folder) from error
            if not is_shortage(error):
                raise
            raise _out_of_memory(session, loop, error) from None
        finally:
            session.link.watch.adopt(None)
    session.observer.ended(status)
    if line:
        session.observer.said(line)
    _announce_result(session)
    if status == "stopped":
        raise TrainingStopped(
            f"{session.stopped_for}; stopped with everything saved. {loop.next_step} steps "
            f"are in {session.folder}; resume with `edge-train run --resume {session.folder}`."
        )
    if status == "over cap":
        raise TrainingStopped(
            f"the run held more than its cap; see {RunFolder(session.folder).page}. What it "
            "learned is saved. Give it a larger --mem."
        )
    if status == "interrupted":
        session.observer.said(
            f"{loop.next_step} steps are saved; go on with "
            f"`edge-train run --resume {session.folder}`"
        )
        return INTERRUPTED
    return 0


def _rate(loop: Loop, step: int) -> float | None:
    """Return the learning rate of a step, where the chain ends with one."""
    links = getattr(loop.transform, "links", ())
    for link in reversed(links):
        if isinstance(link, LearningRate):
            return link.rate * link.share(step)
    return None


def _in_words(error: EdgeTrainError | OSError | NonFinite) -> EdgeTrainError:
    """Return what a person can do about an error; an `OSError` is of a file that went wrong.

    A `NonFinite` comes here where steps that were good are not when they are taken again.

    Raises:
      OutOfMemory: it was memory that a system call did not get.
    """
    if isinstance(error, EdgeTrainError):
        return error
    if isinstance(error, NonFinite):
        return TrainingStopped(
            f"{error}, though it was when the same step was taken before: the loss must depend on "
            "the parameters and the batch alone."
        )
    return RunFolderError(f"{error.filename or 'a file'}: cannot be used ({error.strerror}).")


def _announce_result(session: Session) -> None:
    """Say what the run cost, and name the files that a person wants next."""
    report = summarize(session.folder)
    passes = f"{report['forwards']} forward and {report['backwards']} backward passes"
    peak_bytes = report["measured_peak_bytes"]
    held = f"at most {format_bytes(peak_bytes)} held" if peak_bytes else "memory not measured"
    session.observer.said(f"{passes}, {held}")
    outputs = [session.folder / name for name in report["outputs"].values()]
    for path in (*outputs, RunFolder(session.folder).page):
        session.observer.said(f"  {path}")


def _loop(
    session: Session, runtime: OpenRuntime, book: Journal, records: Sequence[Mapping[str, Any]]
) -> Loop:
    """Return a loop at the end of `records`; a new run first measures where it starts."""
    job, folder = session.job, session.folder
    recipe = job.recipe
    task = job.task()
    if recipe.host_cap_bytes is not None and runtime.device == "cpu":
        raise InputError("--host-mem is for the host beside a GPU; this run is on cpu, use --mem.")
    shared_bytes = _shared_with_card(runtime)
    if recipe.host_cap_bytes is not None and shared_bytes is not None:
        raise InputError(
            "--host-mem is for the host beside a GPU with memory of its own; this one computes in "
            "the machine's, use --mem for both."
        )
    link = session.link
    _set_to_work(link, recipe, runtime)
    if not records and session.measure_threads:
        _choose_threads(session, runtime, task)
    guard = Guard(
        recipe.cap_bytes,
        runtime.device_bytes,
        recipe.host_cap_bytes,
        link.supervisor,
        link.watch.gpu.most if link.watch.gpu is not None else lambda: 0,
        shared_bytes or (lambda: 0),
    )
    _say_where(session, runtime)
    # who perturbs nothing does not ask, and INT8 blocks would become float32 to be measured
    method = methods.get(recipe.method)
    scale = scales_of(runtime.parameters) if method.perturbs else {}
    new = not records
    if new:
        first = start_record(session, runtime, task, scale, guard)
        records = [session.company.start(first, runtime.parameters)]
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
        checkpoints=RunFolder(folder).checkpoints,
        seed=recipe.seed,
        evaluate_every=recipe.evaluate_every or 1,
        patience=recipe.patience or 0,
        best_margin=records[0].get("best_margin", 0.0),
        company=session.company,
        clip=recipe.clip if isinstance(recipe, ClipKeys) else None,
        **_choosing(recipe, runtime.parameters, records[0].get("measured") or {}),
    )
    if not new:
        loop.unsettled = length_of(records).evaluations
    session.company.resume(records[0], loop)
    loop.observe = partial(_observe, session, loop)
    began = time.perf_counter()
    loop.begin(records[0]["eval"], records[0].get("recipe", {}).get("sha256", ""))
    save_seconds = time.perf_counter() - began
    if not new:
        _go_on(session, loop, records)
    rule = partial(_rule_of, job, epsilon, scale)
    if recipe.time_seconds is not None:
        session.timing = open_timing(session, loop, records, save_seconds, rule)
    if ends_by_noise(recipe) and isinstance(session.company, Alone):  # else a server says when
        session.settling = open_settling(records, rule, session.observer, session.timing)
    return loop


def _rule_of(
    job: Job, epsilon: float, scale: Mapping[str, float], fits: tuple[tuple[int, int], ...]
) -> Transform:
    """Return the update rule of a run that is to have so many steps."""
    assert isinstance(job, FitsATime)
    job.use_fits(fits)
    return job.method(epsilon, scale)[1]


def _go_on(session: Session, loop: Loop, records: Sequence[Mapping[str, Any]]) -> None:
    """Bring a loop to the end of its journal; say and keep what changed since."""
    recipe, link = session.job.recipe, session.link
    for line in loop.catch_up(journal.Steps(records)):
        session.observer.said(line)
    session.observer.said(f"resumed after step {loop.next_step - 1}")
    loop.journal.append(
        {
            "kind": "resume",
            "step": loop.next_step,
            "seconds": time.perf_counter() - session.began,
            "cap_bytes": recipe.cap_bytes,
            "host_cap_bytes": recipe.host_cap_bytes,
            **{name: getattr(recipe, name) for name in ("time_seconds", "when")},
            "changes": dict(link.changes),
            "reason": link.reason,
            "wall": link.wall,
            **({"plan_peak_bytes": session.plan.peak_bytes} if session.plan else {}),
        }
    )
    distributions = engines.get(recipe.runtime).distributions
    now = facts_of(session, loop.runtime)
    if change := changed_engine(records[0]["facts"], now, distributions):
        session.observer.said(change)
        loop.journal.append({"kind": "event", "step": loop.next_step - 1, "text": change})


def _choose_threads(session: Session, runtime: OpenRuntime, task: Objective) -> None:
    """Measure how many threads pay, where job and engine can be told; say it."""
    job = session.job
    if not (isinstance(job, Threaded) and isinstance(runtime, Threaded)):
        return
    if runtime.device != "cpu":
        return  # an accelerator's work is not shared by our threads
    evaluation = task.evaluation()
    one, whole = (
        {n: v[:count] for n, v in evaluation.items()} for count in (1, job.recipe.samples)
    )
    point = runtime.parameters
    began = time.perf_counter()
    task.loss(runtime, one, [point])
    batch = one if time.perf_counter() - began > _LONG_PASS_SECONDS else whole
    most = required(job.recipe.threads)
    session.threads = choose(runtime, lambda: task.loss(runtime, batch, [point]), most)
    job.use_threads(session.threads.count)
    session.observer.said(session.threads.sentence())


def _say_where(session: Session, runtime: OpenRuntime) -> None:
    """Say which method runs on which engine and device."""
    recipe = session.job.recipe
    threads = f", {recipe.threads} threads" if recipe.threads else ""
    if recipe.threads == 1:
        threads = ", 1 thread"
    session.observer.said(
        f"{recipe.method} on {recipe.runtime} ({runtime.device}, {runtime.dtype}, weights "
        f"{recipe.quant}{threads})"
    )


def _choosing(
    recipe: Recipe, blocks: Collection[str], measured: Mapping[str, float]
) -> dict[str, Any]:
    """Return what a recipe names for the loop: a batch selection, a block schedule.

    Args:
      blocks: that are trained.
      measured: for the schedule, before the first step.
    """
    found: dict[str, Any] = {}
    if recipe.batch_selection is not None:
        found["selection"] = selections.get(recipe.batch_selection).build(recipe)
    if recipe.block_schedule is not None:
        schedule = schedules.get(recipe.block_schedule)
        found["schedule"] = schedule.build(recipe, blocks, measured)
    return found


def _set_to_work(link: Link, recipe: Recipe, runtime: OpenRuntime) -> None:
    """Tell the watch what it guards, now that it is known where the model runs."""
    shared_bytes = _shared_with_card(runtime)
    on_machine = runtime.device == "cpu" or shared_bytes is not None
    if on_machine or not runtime.device.startswith("cuda"):
        link.watch.gpu = None  # counted once
    cap_bytes = recipe.cap_bytes if on_machine else recipe.host_cap_bytes
    if cap_bytes is not None:
        # of an integrated card, the watch sees the rest; its allocator has a limit of its own
        cap_bytes -= shared_bytes() if shared_bytes is not None else 0
        link.watch.enforce(cap_bytes, wall=link.supervisor is not None)
    link.watch.adopt(runtime.pages)
    if recipe.batch_limit is not None:
        runtime.batch_limit = recipe.batch_limit


def _shared_with_card(runtime: OpenRuntime) -> Callable[[], int] | None:
    """Return what tells the bytes that an integrated card holds, None where none computes."""
    if isinstance(runtime, HasCard) and runtime.card.integrated:
        return runtime.card.shared_bytes
    return None


def _observe(session: Session, loop: Loop, record: StepRecord, best: Best) -> None:
    session.observer.stepped(record, (best.step, best.loss))
    if record.skipped:
        undone = "" if record.skipped == MISSED else "; rolled back"
        session.observer.said(f"step {record.step}: {record.skipped}{undone}")
    expected = session.expected if session.timing is None else None  # a time corrects itself
    if expected and (seconds := expected.corrected(record)) is not None:
        text = f"by its first steps: {in_words(seconds)}, all in all"
        session.observer.said(text)
        event = {"kind": "event", "step": record.step, "text": text, "predicted_seconds": seconds}
        loop.journal.append(event)
    _react(session, loop, record.step)
    shown = session.job.preview(session.folder, record.step + 1, loop.runtime)
    if shown is not None:
        loop.journal.append({"kind": "event", "step": record.step, "text": shown})
    if session.settling is not None:
        session.settling.stepped(loop, record)
    if session.timing is not None:
        session.timing.stepped(loop, record)


def _react(session: Session, loop: Loop, step: int) -> None:
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
    objection, news = session.conditions.objection() if session.conditions else ("", "")
    if news:
        session.observer.said(news)
        loop.journal.append({"kind": "event", "step": step, "text": news})
    if (why := watch.short or objection) and not loop.stop_requested:
        session.stopped_for = why
        session.observer.said(f"{why}; saving and stopping")
        loop.stop_requested = True


def _out_of_memory(session: Session, loop: Loop, error: Exception) -> OutOfMemory:
    """Note in the journal that an allocation failed; return the error for the supervisor."""
    session.link.watch.spend_reserve()
    traceback.clear_frames(error.__traceback__)
    # of a card, where the run computes on one: the cap is about that
    held = loop.runtime.device_bytes() or measure(session.link.supervisor).resident_bytes
    cap_bytes = session.job.recipe.cap_bytes
    text = f"step {loop.next_step}: {shortage(error, held)}"
    least = max(held + bytes_asked(error), cap_bytes or 0)
    session.link.watch.note(f"out of memory: {text}")
    gc.collect()
    give_back_memory()
    smaller = next_smaller(session.job.recipe)
    with suppress(RunFolderError):
        if session.link.supervisor is None or not smaller:
            end_run(loop, session, "stopped", Outcome())
        else:
            for line in session.link.watch.drain(loop.next_step, last=True):
                loop.journal.append(line, durable=True)
    if session.link.supervisor is None:
        text += f". Its steps are in {session.folder}; resume with a larger --mem"
    return OutOfMemory(text, least)


@contextmanager
def _stoppable(loop: Loop) -> Iterator[None]:
    """Let Ctrl-C and a polite kill stop the loop after the step in progress; twice is at once.

    Signals belong to the main thread: a run in another one leaves them to its program.
    """

    def stop(number: int, _: object) -> None:
        if loop.stop_requested:
            leave()
            signal.raise_signal(number)
        loop.stop_requested = True

    def leave() -> None:
        for number, handler in zip(STOPPING, before, strict=True):
            signal.signal(number, handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, stop) for number in STOPPING]
    try:
        yield
    finally:
        leave()
