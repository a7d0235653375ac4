"""The first record of a journal: what is trained, on what, and where it begins."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import __version__
from edge_train.arrays.types import Point
from edge_train.errors import InputError, ModelError, TrainingStopped
from edge_train.estimators.alone import Alone
from edge_train.memory.guard import Guard
from edge_train.memory.link import Link
from edge_train.memory.machine import memory_limit
from edge_train.memory.plan import Plan
from edge_train.methods import methods, schedules
from edge_train.optim.transforms import root_mean_square
from edge_train.power.energy import Meter
from edge_train.protocols import Company, Objective
from edge_train.recipe import Recipe
from edge_train.records.order import FORMAT_VERSION
from edge_train.records.resume import recorded
from edge_train.run.conditions import Conditions
from edge_train.run.expected import Expected
from edge_train.run.observer import Observer
from edge_train.run.pace import in_words
from edge_train.run.settling import Settling
from edge_train.run.timing import Timing, check_first_step, timed_by
from edge_train.runtimes.engine import engines, packages
from edge_train.runtimes.threads import Threads
from edge_train.tasks.job import Job, KnowsItsRadius, OpenRuntime
from edge_train.units import steps_in_words

WANTED_EPSILON = 0.1  # share of a coordinate's rms; see BENCHMARKS.md


@dataclass
class Session:
    """A run folder with everything that is needed to train in it; `job` has its data.

    `plan`, `choice` (of the method, with its reason), `recipe` (as its folder keeps it) and
    `threads`, where they were measured, are those of a new run, for its journal. `measure_threads`:
    nobody named a number, so measure it. `expected`: how long a new run will take.
    `timing`: of a run with a time. `settling`: what ends a run that has learned. `stopped_for`: why
    it has to stop between two steps. `conditions`: looked at between them. `meter`: counts the
    joules of this process. `company`: who takes the steps together.
    """

    folder: Path
    job: Job
    observer: Observer
    began: float
    link: Link
    plan: Plan | None = None
    choice: str = ""
    recipe: Recipe | None = None
    threads: Threads | None = None
    measure_threads: bool = False
    expected: Expected | None = None
    timing: Timing | None = None
    settling: Settling | None = None
    stopped_for: str = ""
    conditions: Conditions | None = None
    meter: Meter | None = None
    company: Company = field(default_factory=Alone)


def scales_of(parameters: Point) -> dict[str, float]:
    """Return the root mean square of every block; that of the smallest other one for zeros."""
    scales = {name: root_mean_square(block) for name, block in parameters.items()}
    smallest = min((scale for scale in scales.values() if scale), default=1.0)
    return {name: scale or smallest for name, scale in scales.items()}


def start_record(
    session: Session,
    runtime: OpenRuntime,
    task: Objective,
    scale: Mapping[str, float],
    guard: Guard,
) -> dict[str, Any]:
    """Check slopes, evaluate the start values; return the first record of the journal."""
    recipe, job = session.job.recipe, session.job
    evaluation = task.evaluation()
    began = time.perf_counter()
    losses = task.loss(runtime, evaluation, [runtime.parameters])
    evaluation_seconds = time.perf_counter() - began
    forwards, check = losses.size, None
    if not np.isfinite(losses).all():
        raise ModelError(
            f"{recipe.model or recipe.task}: its loss is not finite before the first step; the "
            "weights are damaged or --dtype is too small for them."
        )
    repeats = "not checked"
    if runtime.device != "cpu" or not engines.get(recipe.runtime).exact_repeats:
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
        wanted = job.wanted_radius() if isinstance(job, KnowsItsRadius) else WANTED_EPSILON
        check = check_slopes(runtime, task, some, scale, recipe.seed, wanted, smallest)
        forwards += check.forwards
        session.observer.said(check.sentence())
    measured, notices = None, list(job.notes)
    if recipe.block_schedule is not None:
        schedule = schedules.get(recipe.block_schedule)
        if schedule.measure:
            measured, passes = schedule.measure(recipe, runtime, task)
            forwards += passes
        built = schedule.build(recipe, runtime.parameters, measured or {})
        if text := schedule.warns(recipe, built):
            session.observer.said(text)
            notices.append(text)
    job.preview(session.folder, 0, runtime)
    try:
        usage = guard.check(0)
    except TrainingStopped as error:  # nothing was trained yet
        raise InputError(str(error)) from error
    predicted = {}
    if session.plan is not None and session.plan.work is not None:
        spent = time.perf_counter() - session.began
        session.expected = Expected(session.plan.work, spent, evaluation_seconds)
        expected = session.expected.seconds
        if recipe.time_seconds is not None:
            found = timed_by(session.plan.work, evaluation_seconds, 0.0, spent)
            check_first_step(recipe.time_seconds, found)
            expected = min(expected, recipe.time_seconds)
        predicted["predicted_seconds"] = expected
        if expected == session.expected.seconds:  # else how many steps fit is said later
            session.observer.said(
                f"{in_words(expected)} for {steps_in_words(recipe.steps)}, all in all"
            )
    return {
        "kind": "start",
        "version": FORMAT_VERSION,
        "recipe": recorded(session.recipe or recipe),
        "rules": recipe.rules,
        "data_sha256": job.data_sha256(),
        "facts": {
            **facts_of(session, runtime),
            "repeats": repeats,
            **predicted,
            **({"threads_measured": session.threads.sentence()} if session.threads else {}),
            **job.facts(session.folder),
            **({"notices": notices} if notices else {}),
        },
        "slope_check": check.record() if check else None,
        **({"measured": dict(measured)} if measured is not None else {}),
        "threads": session.threads.record() if session.threads else None,
        **({"best_margin": margin} if (margin := method.best_margin(recipe)) else {}),
        "eval": float(losses.astype(np.float64).mean()),
        "forwards": forwards,
        "seconds": time.perf_counter() - session.began,
        "peak_bytes": usage.peak_bytes,
    }


def facts_of(session: Session, runtime: OpenRuntime) -> dict[str, Any]:
    """Return what is trained, with what and where, for the journal."""
    recipe, limit = session.job.recipe, memory_limit()
    container = {} if limit is None else {"container_bytes": limit.bytes}
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
        **({"time_seconds": recipe.time_seconds} if recipe.time_seconds is not None else {}),
        **({"when": recipe.when} if recipe.when is not None else {}),
        **container,
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
