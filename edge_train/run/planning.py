"""When a plan is made and how: estimated, or rehearsed under the wall; and what `auto` came to."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from edge_train import registry
from edge_train.errors import InputError, OutOfMemory
from edge_train.memory.footprint import Footprint, PlanLine, has_room
from edge_train.memory.link import Link
from edge_train.memory.measure import has_counters, measure
from edge_train.memory.plan import (
    LARGE_BYTES,
    Plan,
    estimate,
    is_far,
    load_libraries,
    needs,
    surely_above,
)
from edge_train.methods import methods
from edge_train.methods.exact import ends_by_noise
from edge_train.recipe import Recipe
from edge_train.run.pace import Prediction, in_words, work_of
from edge_train.run.rehearsal import WHAT, rehearse
from edge_train.run.scratch import scratch, sweep
from edge_train.tasks import task_of
from edge_train.tasks.begun import who_named_method
from edge_train.tasks.job import Job, Say
from edge_train.tasks.task import NOT_MEASURED
from edge_train.units import format_bytes

PAGE_BYTES = 16_000_000  # what the process of `--watch` holds, its interpreter included


def make_plan(job: Job, recipe: Recipe, link: Link, say: Say) -> Plan:
    """Return the plan of a run that is about to start.

    Far from the cap an estimate does. Near it, a worker rehearses the run under its wall, becomes
    a fresh process with the measured plan, and this returns there.

    Args:
      recipe: as it was asked for.

    Raises:
      OutOfMemory: the cap cannot hold it; in a worker, so a smaller way is tried.
      InputError: likewise, where nobody would try.
    """
    if link.plan is not None:
        plan = Plan.from_record(link.plan)
        _report(plan, link)
        load(link.plan["libraries"], link)
        return plan
    sweep()  # a run that needs no rehearsal cleans up after one that did
    footprint = with_page(job.footprint(), link)
    work = work_of(job.recipe, footprint)
    plan = estimate(footprint, footprint.libraries_bytes)
    _report(plan, link)
    cap_bytes = recipe.cap_bytes
    on_host = link.supervisor is None or link.watch.cap_bytes is not None
    if cap_bytes and on_host and not has_room(cap_bytes, footprint.libraries_bytes):
        _refuse(plan, cap_bytes, link)
    load(footprint.libraries, link)
    base = measure(link.supervisor).resident_bytes - footprint.job_bytes
    if (
        link.page is not None and has_counters()
    ):  # it may still be starting, so it has a line of its own
        base -= measure(link.page).resident_bytes
    plan = replace(estimate(footprint, base), work=work)
    _report(plan, link)
    link.tell(planned=True)
    if cap_bytes is None or not on_host or is_far(plan, cap_bytes):
        return plan
    if footprint.model_bytes > LARGE_BYTES:
        if surely_above(plan, cap_bytes):
            _refuse(plan, cap_bytes, link)
        return plan
    if link.again is not None:
        cap = format_bytes(cap_bytes)
        say(f"the cap is near what this run needs; rehearsing it ({cap}): {WHAT}")
        with scratch(link) as folder:
            plan = replace(rehearse(job.recipe, link, folder), work=work)
        link.again({**plan.record(), "libraries": footprint.libraries})
    return plan


def with_page(footprint: Footprint, link: Link) -> Footprint:
    """Return a footprint with the line of the page that `--watch` offers, in every phase.

    A rehearsal measures that process with the interpreters.
    """
    if link.page is None:
        return footprint
    line = PlanLine("page of --watch", PAGE_BYTES)
    known = {name: (line, *lines) for name, lines in footprint.known.items()}
    return replace(footprint, known=known)


def load(libraries: Sequence[str], link: Link) -> None:
    """Import what a run will import; while that lasts, more memory than usual is kept free."""
    with link.watch.loading(any(name not in sys.modules for name in libraries)):
        load_libraries(libraries)


def _report(plan: Plan, link: Link) -> None:
    largest = ", ".join(f"{line.name} {format_bytes(line.bytes)}" for line in plan.largest)
    link.tell(needs_bytes=plan.peak_bytes, largest=largest)


def _refuse(plan: Plan, cap_bytes: int, link: Link) -> None:
    if link.supervisor is None:
        raise InputError(f"{needs(plan, cap_bytes)} `edge-train plan --all` lists every line.")
    raise OutOfMemory(f"plan needs {format_bytes(plan.peak_bytes)}", plan.peak_bytes)


def choice_of(job: Job, asked: Recipe, link: Link, plan: Plan | None = None) -> str:
    """Return which method and weights are taken, and why, as a line for people.

    Args:
      plan: of the run; then the line says what to expect of a method that was not asked for.
    """
    recipe, task = job.recipe, task_of(job.recipe)
    why = {
        (saving.key, value): reason
        for saving in task.savings
        for value, reason in saving.reasons.items()
    }
    if asked.method != "auto":
        reason = who_named_method(asked)
    elif "method" in link.changes:
        reason = why["method", link.changes["method"]]
    elif recipe.method == task.auto:
        reason = task.why_auto
    elif methods.get(task.auto).needs <= task.use(recipe.runtime).offers:
        reason = "its own keys were set"
    else:
        reason = "this engine only runs forward"
    line = f"method {recipe.method}: {reason}"
    if asked.quant == "auto" and "quant" in link.changes:
        line += f"; quant {recipe.quant}: {why['quant', link.changes['quant']]}"
    if asked.method == "auto" and plan is not None and plan.work is not None:
        line += expectation(recipe, in_words(Prediction(**plan.work).seconds))
    return line


def expectation(recipe: Recipe, time: str) -> str:
    """Return the passes, time and quality to expect of a run, by what was measured of its way.

    A quality is promised only of the model, data and length that it was measured of. Empty for
    tasks of which nothing was measured.

    Args:
      recipe: with its defaults filled in.
      time: that the run takes, in words.
    """
    task = task_of(recipe)
    if not task.quality:
        return ""
    quality = task.known_quality(recipe)
    passes, steps = methods.get(recipe.method).passes(recipe), recipe.steps or 0
    count = f"{steps * passes.forwards:,} forward"
    if passes.backwards:
        count += f" and {steps * passes.backwards:,} backward"
    most = "at most " if ends_by_noise(recipe) else ""
    line = f"; expect {most}{count} passes, {time}"
    if quality == NOT_MEASURED:
        return f"{line}; what quality this gives was not measured"
    if task.as_measured is not None and registry.load(task.as_measured)(recipe):
        return f"{line}, and quality as measured: {quality}"
    return f"{line}; what quality this gives here was not measured (of this way: {quality})"
