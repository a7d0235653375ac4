"""Start a run, or go on with one: its folder, and what a crash may have damaged."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_train.errors import OutOfMemory, RunFolderError
from edge_train.formats.artifact import is_artifact
from edge_train.formats.atomic import write_bytes
from edge_train.formats.embedded import embedded_artifact
from edge_train.memory.footprint import ONNX_BYTES, has_room
from edge_train.memory.gpu import open_gpu_memory
from edge_train.memory.link import Link
from edge_train.memory.measure import measure
from edge_train.memory.plan import Plan
from edge_train.memory.watch import Watch
from edge_train.protocols import Company
from edge_train.recipe import Recipe, to_toml, with_absolute_paths
from edge_train.records import journal
from edge_train.records.agreement import agreed_steps
from edge_train.records.folder import RunFolder
from edge_train.records.history import (
    cap_in_force,
    changes_for_memory,
    has_begun,
    time_in_force,
)
from edge_train.records.lock import only_writer
from edge_train.records.results import gone_or_damaged
from edge_train.records.resume import check_same_model, rules_of, threads_of
from edge_train.run.card import in_words
from edge_train.run.conditions import wait_until_allowed
from edge_train.run.container import check_container, fitted
from edge_train.run.disk import check_disk
from edge_train.run.elsewhere import tell_elsewhere
from edge_train.run.ending import write_report
from edge_train.run.engine_here import lacks_engine, refuse_without_engine
from edge_train.run.longer import lengthen, lengthened
from edge_train.run.new_folder import check_out, new_folder
from edge_train.run.observer import Observer
from edge_train.run.own_code import code_words, without_code
from edge_train.run.planning import choice_of, load, make_plan
from edge_train.run.recipe_file import recipe_in_folder
from edge_train.run.savings import next_smaller, words
from edge_train.run.start import Session
from edge_train.run.timing import check_time
from edge_train.run.training import train
from edge_train.runtimes.threads import Threaded
from edge_train.tasks import open_job, task_of
from edge_train.tasks.job import Job, KnowsItsModel, ReadsMoreOfItsModel
from edge_train.units import format_bytes


def run(
    recipe: Recipe,
    observer: Observer,
    link: Link | None = None,
    began: float | None = None,
    company: Company | None = None,
) -> int:
    """Start a run; return the exit status.

    Args:
      company: who takes the steps together; None: nobody else.
      link: to the supervisor of this process, if it has one; without one nothing outside this
        process enforces the cap, and it is not started again when memory does not suffice.
      began: without one, when the command was typed, as `time.monotonic` tells; None: now.

    Raises:
      EdgeTrainError: the user must change something, or training stopped; see `exit_status`.
    """
    with _linked(link, began) as link, in_words(link):
        return _run(recipe, observer, link, company)


def _run(
    recipe: Recipe,
    observer: Observer,
    link: Link,
    company: Company | None,
    folder: Path | None = None,
) -> int:
    """Start a run in a folder of its own, or in the `folder` that this process holds already."""
    link.tell(code=code_words(recipe))
    wait_until_allowed(recipe, observer.said, link)
    began = _beginning(recipe, link)
    recipe = _fitted(recipe, observer, link)
    if folder is None:
        check_out(recipe.out)
    _announce_restart(recipe, observer, link)
    before_bytes = measure(link.supervisor).resident_bytes
    job = _open(recipe, link)
    check_time(recipe, job)
    _look_at_gpus(job, link)
    smaller = next_smaller(job.recipe, recipe)
    link.tell(smaller=smaller)
    tell_elsewhere(job, recipe, link, before_bytes, last=not smaller)
    plan = make_plan(job, recipe, link, observer.said)
    check_container(recipe, plan)
    job.load()
    check_disk(replace(job.recipe, out=recipe.out), job.name, plan)
    if folder is not None:
        RunFolder(folder).make()
        link.tell(folder=str(folder))
        session = Session(folder, job, observer, began, link, plan)
        return _begin(_with(session, company), recipe)
    with new_folder(job.recipe.out, job.name, link, observer.said) as made:
        return _begin(_with(Session(made, job, observer, began, link, plan), company), recipe)


def _with(session: Session, company: Company | None) -> Session:
    if company is not None:
        session.company = company
    return session


def _begin(session: Session, recipe: Recipe) -> int:
    """Write what the run is, prepare its data, train; return the exit status."""
    folder, job, link = session.folder, session.job, session.link
    said = job.notes
    for note in said:
        session.observer.said(note)
    own = [name for name in link.changes if name not in ("method", "quant")]
    asked = replace(job.recipe, **{name: getattr(recipe, name) for name in (*own, "threads")})
    session.recipe = with_absolute_paths(asked)
    write_bytes(RunFolder(folder).recipe, to_toml(session.recipe).encode())
    session.choice = choice_of(job, recipe, link, session.plan)
    session.observer.said(session.choice)
    if session.plan is not None:
        _write_plan(folder, recipe, session.choice, session.plan)
    with link.watch.loading(task_of(recipe).loads):
        job.prepare(folder, session.observer.said)
    for note in job.notes:
        if note not in said:  # one that preparing the data brought up
            session.observer.said(note)
    session.measure_threads = recipe.threads is None
    return train(session, [], None)


def _open(recipe: Recipe, link: Link) -> Job:
    """Return the job of a recipe, with what is given up for memory; an artifact's loads its engine.

    Raises:
      OutOfMemory: the cap of a worker cannot hold that engine.
    """
    shipped = embedded_artifact(recipe.model, recipe.runtime)
    engine = shipped is not None or is_artifact(Path(recipe.model).expanduser())
    if link.supervisor and engine and not has_room(recipe.cap_bytes, ONNX_BYTES):
        raise OutOfMemory(f"libraries alone hold {format_bytes(ONNX_BYTES)}", ONNX_BYTES)
    with link.watch.loading(task_of(recipe).loads):
        return open_job(replace(recipe, **link.changes))


def _write_plan(folder: Path, recipe: Recipe, choice: str, plan: Plan) -> None:
    content = {"cap_bytes": recipe.cap_bytes, "choice": choice, **plan.record()}
    write_bytes(RunFolder(folder).plan, (json.dumps(content, indent=2) + "\n").encode())


def resume(
    folder: Path,
    changes: Mapping[str, Any],
    observer: Observer,
    link: Link | None = None,
    began: float | None = None,
    company: Company | None = None,
) -> int:
    """Go on with a run from its last durable step; return the exit status.

    A run that was made smaller for want of memory stays so, unless it gets another cap: then it is
    planned again.

    Args:
      changes: recipe keys that do not change what was computed: the caps, and `steps` in all,
        more than were taken; `model` and `start`, where the same ones lie elsewhere now. With the
        code that the run imports, if any: it is named again.
      company: who takes the steps together; None: nobody else.
      link: to the supervisor of this process, if it has one.
      began: as in `run`.

    Raises:
      RunFolderError: there is nothing to resume, it belongs to another model, or it imports code
        that was not named.
      InputError: as many steps were taken already.
    """
    if not (RunFolder(folder).recipe.is_file() or RunFolder(folder).journal.is_file()):
        raise RunFolderError(f"{RunFolder(folder).no_run()} `edge-train run` starts one.")
    RunFolder(folder).check_kinds()
    with (
        _linked(link, began) as link,
        only_writer(folder, observer.said, link.lock, link.lend),
        in_words(link),
    ):
        return _resume(folder, changes, observer, link, company)


def _resume(
    folder: Path,
    changes: Mapping[str, Any],
    observer: Observer,
    link: Link,
    company: Company | None,
) -> int:
    path = RunFolder(folder).journal
    records, intact, wrong = _believed(folder)
    more = None
    stored = recipe_in_folder(folder, records, link, observer.said)
    changes = _with_files(folder, stored, without_code(folder, stored, changes))
    link.tell(code=code_words(stored))
    if records:
        recipe, more = lengthened(folder, records, stored, changes)
    else:
        recipe = replace(stored, **changes)
    kept = replace(recipe, spans=(), fits=())
    if more is None:  # files whose hash is not known yet are not kept
        _keep(folder, stored, replace(kept, model=stored.model, start=stored.start))
    recipe = replace(recipe, out=str(folder))
    if path.exists() and path.stat().st_size > intact:
        copy = RunFolder(folder).damaged_journal
        write_bytes(copy, path.read_bytes())
        observer.said(
            f"{path.name}: line {len(records) + 1} {wrong}; going on from the records before it "
            f"(the whole file is kept as {copy.name})"
        )
    finished = bool(records) and more is None and _is_finished(records, recipe)
    if missing := lacks_engine(recipe):
        if finished and not gone_or_damaged(folder, records[-1]):
            return _report_again(folder, intact, observer)
        refuse_without_engine(folder, recipe, missing)
    if not records:
        observer.said("there is nothing to go on from; starting from step 0")
        path.unlink(missing_ok=True)
        return _run(recipe, observer, link, company, folder)
    if not finished:
        wait_until_allowed(recipe, observer.said, link)
    began = _beginning(recipe, link)
    recipe = _fitted(replace(recipe, rules=rules_of(folder, records[0])), observer, link)
    _announce_restart(recipe, observer, link)
    link.changes = {**changes_for_memory(records, recipe.cap_bytes), **link.changes}
    threads = threads_of(records[0])
    if recipe.threads is None:
        recipe = replace(recipe, threads=threads.before)
    if "start" not in changes:
        _refuse_without_start(folder, stored)
    job = _open(recipe, link)
    check_time(recipe, job)
    _look_at_gpus(job, link)
    link.tell(smaller=next_smaller(job.recipe), started=True)
    check_same_model(
        folder,
        records[0]["facts"],
        job.recipe.runtime,
        job.recipe.model,
        job.model_sha256,
        job.is_model if isinstance(job, KnowsItsModel) else None,
    )
    if more is None:  # else a smaller process still needs the words of steps, or of a start
        checked = replace(kept, start=stored.start)
        _keep(folder, replace(checked, model=stored.model), checked)
        if kept.start == stored.start:
            link.tell(folder=str(folder))
    if clauses := gone_or_damaged(folder, records[-1]) if finished else []:
        observer.said(f"{folder}: this run is finished, but {', '.join(clauses)}; made again")
    elif finished:
        return _report_again(folder, intact, observer)
    if isinstance(job, ReadsMoreOfItsModel):
        job.check_model(folder, observer.said)
    plan = None
    if recipe.cap_bytes != cap_in_force(records):
        plan = make_plan(job, recipe, link, observer.said)
        choice = "as before; planned again for another cap"
        _write_plan(folder, recipe, choice, plan)
    else:
        load(job.footprint().libraries, link)
    RunFolder(folder).make()  # a part may have been removed
    job.restore(folder, observer.said)
    _check_same_data(folder, records[0], job, observer)
    if more is None:
        _keep(folder, replace(kept, start=stored.start), kept)
        link.tell(folder=str(folder))
    if stored.threads is None and threads.chosen is not None and isinstance(job, Threaded):
        job.use_threads(threads.chosen)
    if more is not None:
        intact = lengthen(folder, path, intact, kept, more, observer.said)
        records, _ = journal.read(path)
        link.tell(folder=str(folder))
    session = _with(Session(folder, job, observer, began, link, plan), company)
    return train(session, records, intact)


def _report_again(folder: Path, intact: int, observer: Observer) -> int:
    """Write the report of a finished run anew; return the exit status."""
    journal.Journal(RunFolder(folder).journal, intact).close()  # what a full disk left behind it
    observer.said(f"{folder}: this run is finished; its report was made again")
    write_report(folder)
    return 0


def _with_files(folder: Path, stored: Recipe, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes in which files that were named are found from every working directory.

    Raises:
      RunFolderError: the run has no such file.
    """
    if "model" in changes and not stored.model:
        raise RunFolderError(f"{folder}: this run has no model of a file; leave --model out.")
    if "start" in changes and stored.start is None:
        instead = f"; it goes on from {stored.model}, which --model names" * bool(stored.model)
        raise RunFolderError(
            f"{folder}: this run did not begin with --from{instead}; leave --from out."
        )
    named = {"model", "start"} & changes.keys()
    absolute = with_absolute_paths(replace(stored, **{name: changes[name] for name in named}))
    return {**changes, **{name: getattr(absolute, name) for name in named}}


def _refuse_without_start(folder: Path, recipe: Recipe) -> None:
    if recipe.start is not None and not Path(recipe.start).exists():
        raise RunFolderError(
            f"{folder}: this run began with --from {recipe.start}, which is not there any more. If "
            f"it lies elsewhere now: edge-train run --resume {folder} --from PLACE."
        )


def _keep(folder: Path, before: Recipe, now: Recipe) -> None:
    if now != before:
        write_bytes(RunFolder(folder).recipe, to_toml(now).encode())


def _beginning(recipe: Recipe, link: Link) -> float:
    """Return when a run began, as `time.perf_counter` tells: with a time, what led to it counts."""
    before = 0.0
    if recipe.time_seconds is not None and link.began is not None:
        before = time.monotonic() - link.began
    return time.perf_counter() - before


def _is_finished(records: Sequence[Mapping[str, Any]], recipe: Recipe) -> bool:
    """Return whether there is nothing to go on with: one that its time ended may have more now."""
    end = records[-1]
    if end["kind"] != "end" or end["status"] != "done":
        return False
    if end.get("ended_by") != "time" or recipe.time_seconds is None:
        return True
    return recipe.time_seconds <= (time_in_force(records) or 0.0)


def _believed(folder: Path) -> tuple[Sequence[Mapping[str, Any]], int, str]:
    """Return the records of a run that can be gone on from, their bytes, what is wrong behind."""
    path = RunFolder(folder).journal
    if not path.exists():
        return [], 0, ""
    records, intact = journal.read(path)
    wrong = "is torn, damaged or not the one that follows"
    if not has_begun(records) or records[0].get("eval") is None:
        return [], 0, wrong
    agreed = agreed_steps(RunFolder(folder), records)
    if agreed is None:
        return records, intact, wrong
    wrong = "does not tell of the steps that the checkpoints were written after"
    if agreed < 0:
        return [], 0, wrong
    records = records.before_step(agreed)
    return records, records.intact, wrong


def _check_same_data(folder: Path, start: Mapping[str, Any], job: Job, observer: Observer) -> None:
    """Have the data that a run began with: those kept in its folder, or made again from the source.

    Raises:
      RunFolderError: they are others; older runs of most tasks did not record theirs.
    """
    began = start.get("data_sha256")
    if began in (None, job.data_sha256()):
        return
    observer.said(f"{folder}: what it keeps of the data is of another run; reading the data again")
    job.load()
    job.prepare(folder, observer.said)
    if began != job.data_sha256():
        begun = f", or what {job.recipe.start} holds," if job.recipe.start else ""
        raise RunFolderError(
            f"{folder}: the samples in {getattr(job.recipe, 'data', None) or 'its data'}{begun} "
            "are not those that this run began with; put them back, or start a new run."
        )


@contextmanager
def _linked(link: Link | None, began: float | None) -> Iterator[Link]:
    """Yield the link, or one of a process that nobody supervises, with a watch of its own."""
    if link is not None:
        yield link
        return
    watch = Watch(None).start()
    try:
        own = Link(watch)
        own.began = began
        yield own
    finally:
        watch.stop()


def _look_at_gpus(job: Job, link: Link) -> None:
    """Have what GPUs hold sampled from now on, before anything of this run is there."""
    if job.recipe.device != "cpu":
        link.watch.gpu = open_gpu_memory(link.supervisor)


def _announce_restart(recipe: Recipe, observer: Observer, link: Link) -> None:
    if link.reason:
        smaller = words(task_of(recipe), link.changes)
        observer.said(f"out of memory: {link.reason}; going on with {smaller}")


def _fitted(recipe: Recipe, observer: Observer, link: Link) -> Recipe:
    """Return a recipe whose cap this machine can hold; say what there is to say, once a run."""
    recipe, notes = fitted(recipe)
    if link.plan is None and not link.reason:  # else an earlier process of this run said it
        for note in notes:
            observer.said(note)
    return recipe
