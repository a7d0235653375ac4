"""Train in a run folder: measure the start, repeat the step, save, look, report."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from edge_train import __version__, build, checkpoint, journal
from edge_train.build import Job
from edge_train.checkpoint import Best
from edge_train.errors import (
    INTERRUPTED,
    EdgeTrainError,
    InputError,
    ModelError,
    RunFolderError,
    TrainingStopped,
)
from edge_train.export.token_file import write_token
from edge_train.journal import Journal
from edge_train.loop import Loop
from edge_train.memory import Guard
from edge_train.params import Parameters
from edge_train.pictures import EmbeddedJudge, draw, save_pictures
from edge_train.protocols import StepRecord
from edge_train.report import summarize, write_report
from edge_train.tasks.captions import file_name_of
from edge_train.tasks.personalize import PhotoCache
from edge_train.tasks.photos import PhotoSet
from edge_train.transforms import root_mean_square
from edge_train.units import format_bytes

if TYPE_CHECKING:
    from edge_train.build import Denoiser

_WANTED_EPSILON = 0.1  # share of a coordinate's rms; see BENCHMARKS.md
_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "optimum-quanto",
    "onnxruntime",
    "onnxruntime-training-cpu",
    "numpy",
)


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
    """A run folder with everything that is needed to train in it."""

    folder: Path
    job: Job
    model_sha256: str
    cache: PhotoCache
    photos: PhotoSet | None  # None after a resume: training needs only the cache
    observer: Observer
    began: float


def train(session: Session, records: list[dict[str, Any]], intact: int | None) -> int:
    """Train from the journal's `records` on (none for a new run); return the exit status."""
    job = session.job
    judge = _judge(session)
    prompts = (*job.recipe.prompts, *(judge.prompts if judge else ()), "")
    ids = {
        name: np.concatenate([cached.ravel(), *(job.ids(p)[name] for p in prompts)])
        for name, cached in session.cache.ids.items()
    }
    with (
        closing(build.open_runtime(job, Parameters(job.start), ids)) as runtime,
        closing(Journal(session.folder / "journal.jsonl", intact)) as book,
    ):
        loop = _loop(session, runtime, book, records)
        session.observer.started(loop.next_step, job.recipe.steps or 0, job.recipe.cap_bytes)
        try:
            with _stoppable(loop):
                outcome = loop.fit(job.recipe.steps or 0)
            status = _finish(session, loop, judge, outcome)
        except EdgeTrainError as error:
            session.observer.ended("stopped")
            with suppress(RunFolderError):  # the disk may be what stopped it
                _end(loop, session, "stopped", {}, {})
            raise TrainingStopped(
                f"{error} {loop.next_step} steps are in {session.folder}; resume with "
                f"`edge-train run --resume {session.folder}`."
            ) from error
    session.observer.ended(status)
    _say_what_there_is(session)
    if status == "over cap":
        raise TrainingStopped(
            f"the run held more than its cap; see {session.folder / 'report.html'}. The learned "
            "token is saved. Give it a larger --mem."
        )
    return INTERRUPTED if status == "interrupted" else 0


def _say_what_there_is(session: Session) -> None:
    """Name the files that a person wants next, and the score where there is one."""
    report = summarize(session.folder)
    metrics = report["metrics"]
    if metrics:
        session.observer.said(
            f"{metrics['pictures']} pictures of the new word, judged: "
            f"{100 * metrics['class_accuracy']:.0f} % show a {metrics['judged_class']}, "
            f"{100 * metrics['color_accuracy']:.0f} % in the color asked for, "
            f"{100 * metrics['background_accuracy']:.0f} % on the background asked for"
        )
    passes = f"{report['forwards']} forward and {report['backwards']} backward passes"
    held = format_bytes(report["measured_peak_bytes"])
    session.observer.said(f"{passes}, at most {held} held")
    for name in (*report["outputs"].values(), "report.html"):
        session.observer.said(f"  {session.folder / name}")


def _loop(
    session: Session, runtime: "Denoiser", book: Journal, records: list[dict[str, Any]]
) -> Loop:
    """Return a loop at the end of `records`; a new run first measures where it starts."""
    job, folder = session.job, session.folder
    recipe = job.recipe
    task = build.build_task(job, session.cache)
    if recipe.host_cap_bytes is not None and runtime.device == "cpu":
        raise InputError("--host-mem is for the host beside a GPU; this run is on cpu, use --mem.")
    guard = Guard(recipe.cap_bytes, runtime.device_bytes, recipe.host_cap_bytes)
    session.observer.said(
        f"{recipe.method} on {recipe.runtime} ({runtime.device}, {runtime.dtype}, weights "
        f"{recipe.quant}, {recipe.threads} threads)"
    )
    scale = {name: root_mean_square(block) for name, block in job.start.items()}
    new = not records
    if new:
        records = [_start_record(session, runtime, task, scale, guard)]
        book.append(records[0], durable=True)
    check = records[0]["slope_check"]
    epsilon = check["epsilon"] if check else recipe.epsilon or 0.0
    estimator, transform = build.build_method(recipe, epsilon, scale)
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
    )
    loop.begin(records[0]["eval"])
    if not new:
        steps = [journal.step_record(r) for r in records if r["kind"] == "step"]
        _catch_up(loop, steps, session.observer)
        book.append({"kind": "resume", "step": loop.next_step, "seconds": 0.0})
    return loop


def _observe(session: Session, loop: Loop, record: StepRecord, best: Best) -> None:
    session.observer.stepped(record, (best.step, best.loss))
    if record.skipped:
        session.observer.said(f"step {record.step}: {record.skipped}; rolled back")
    every = session.job.recipe.preview_every
    if every and (record.step + 1) % every == 0:
        point = loop.runtime.parameters.copy()
        pictures = draw(session.job, loop.runtime, point, session.job.recipe.prompts)
        name = f"step-{record.step + 1:08d}"
        paths = save_pictures(session.folder / "samples", name, pictures)
        loop.journal.append(
            {"kind": "event", "step": record.step, "text": f"previews {paths[0]} ..."}
        )


def _start_record(
    session: Session, runtime: Any, task: Any, scale: Mapping[str, float], guard: Guard
) -> dict[str, Any]:
    """Check slopes, evaluate the start vectors; return the first record of the journal."""
    recipe, job = session.job.recipe, session.job
    evaluation = task.evaluation()
    losses = task.loss(runtime, evaluation, [runtime.parameters])
    forwards, check = losses.size, None
    if not np.isfinite(losses).all():
        raise ModelError(
            f"{recipe.model}: its loss is not finite before the first step; the weights are "
            "damaged or --dtype is too small for them."
        )
    if recipe.method == "zo" and recipe.epsilon is None:
        from edge_train.methods.slopes import SAMPLES, check_slopes

        some = {name: values[:SAMPLES] for name, values in evaluation.items()}
        smallest = build.smallest_radius(job)
        check = check_slopes(runtime, task, some, scale, recipe.seed, _WANTED_EPSILON, smallest)
        forwards += check.forwards
        session.observer.said(check.sentence())
    try:
        usage = guard.check(0)
    except TrainingStopped as error:  # nothing was trained yet
        raise InputError(str(error)) from error
    photos = session.photos.photos if session.photos else ()
    pictures = save_pictures(session.folder / "samples", "photo", [p.pixels for p in photos])
    described = [
        {"name": photo.name, "caption": photo.caption, "note": photo.note, "picture": path}
        for photo, path in zip(photos, pictures, strict=True)
    ]
    facts = {
        **_facts(session, runtime),
        "photos": described,
        "skipped": [list(pair) for pair in (session.photos.skipped if session.photos else ())],
        "captions_from": "files" if all(p.caption for p in photos) else f"{recipe.learn} templates",
    }
    return {
        "kind": "start",
        "version": journal.FORMAT_VERSION,
        "facts": facts,
        "slope_check": check.record() if check else None,
        "eval": float(losses.astype(np.float64).mean()),
        "forwards": forwards,
        "seconds": time.perf_counter() - session.began,
        "peak_bytes": usage.peak_bytes,
    }


def _facts(session: Session, runtime: Any) -> dict[str, Any]:
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
        "model_sha256": session.model_sha256,
        "seed": recipe.seed,
        "threads": recipe.threads,
        "cap_bytes": recipe.cap_bytes,
        "versions": _versions(),
        "token": recipe.token,
        "class_word": recipe.class_word,
        "learn": recipe.learn,
        "vectors": recipe.vectors,
        "resolution": recipe.resolution,
        "window": list(recipe.window or ()),
        "steps_planned": recipe.steps,
        "prompts": list(recipe.prompts),
    }


def _versions() -> dict[str, str]:
    found = {"edge-train": __version__}
    for package in _PACKAGES:
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


def _finish(session: Session, loop: Loop, judge: EmbeddedJudge | None, outcome: str) -> str:
    """Save the best token, draw and score pictures, write the report; return the status."""
    job, folder = session.job, session.folder
    recipe, best = job.recipe, loop.best
    facts = {
        "base_model": recipe.model,
        "base_model_sha256": session.model_sha256,
        "steps": str(best.step),
        "class_word": str(recipe.class_word),
        "edge_train_version": __version__,
    }
    token = str(recipe.token)
    files = write_token(folder, file_name_of(token), token, best.parameters, facts)
    outputs = {"token": files[0].name}
    metrics: dict[str, Any] = {}
    if outcome == "settled":
        text = f"the evaluation settled after {loop.next_step} of {recipe.steps} steps"
        session.observer.said(text)
        loop.journal.append({"kind": "event", "step": loop.next_step - 1, "text": text})
    if outcome != "interrupted":  # pictures wait until here: decoding them may hold the most
        before = draw(job, loop.runtime, job.start, recipe.prompts)
        save_pictures(folder / "samples", "before", before)
        pictures = draw(job, loop.runtime, best.parameters, recipe.prompts)
        save_pictures(folder / "samples", "after", pictures)
        if judge:
            metrics = judge.score(
                draw(job, loop.runtime, best.parameters, judge.prompts, together=64)
            )
    status = "interrupted" if outcome == "interrupted" else "done"
    status = _end(loop, session, status, metrics, outputs)
    write_report(folder)
    return status


def _end(
    loop: Loop,
    session: Session,
    status: str,
    metrics: Mapping[str, Any],
    outputs: Mapping[str, str],
) -> str:
    """Write the last record; return the status, which is `over cap` when memory says so."""
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
            "metrics": dict(metrics),
            "outputs": dict(outputs),
            "measured_peak_bytes": usage.peak_bytes,
            "measured_anon_bytes": usage.anon_bytes,
            "seconds_total": time.perf_counter() - session.began,
        },
        durable=True,
    )
    return status


def _judge(session: Session) -> EmbeddedJudge | None:
    """Return the judge of the embedded model; other models have none."""
    if not session.job.judged:
        return None
    if session.photos is not None:
        photos = np.stack([photo.pixels for photo in session.photos.photos])
    else:
        paths = sorted((session.folder / "samples").glob("photo-*.png"))
        photos = np.stack([np.asarray(Image.open(path)) for path in paths])
    return EmbeddedJudge(photos)
