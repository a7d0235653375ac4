"""A survey as text for people: the answer first, then the rows that matter, or all of them."""

import sys

from edge_train.memory.wall import WALL_NONE
from edge_train.run.disk import needs_in_words
from edge_train.run.pace import in_words
from edge_train.run.savings import words
from edge_train.run.survey import Choice, Survey
from edge_train.tasks import task_of
from edge_train.units import format_bytes, format_seconds, steps_in_words

_LINES, _RUNGS = 5, 3  # what is held most, and what a run gives up first


def plan_text(survey: Survey, *, everything: bool = False) -> str:
    """Return an answer, and a dozen rows.

    Args:
      everything: every line of every phase, and every choice.
    """
    rows = [_answer(survey), *_time(survey), ""]
    if everything:
        rows += [survey.shown.plan.text(), _folder(survey), "", *_table(survey)]
    else:
        rows += [*_held(survey.shown), _folder(survey), *_ladder(survey)]
        rows.append("`edge-train plan --all` lists every phase and every way to run it")
    if survey.shown.opened:
        rows.append(f"{survey.shown.opened}, so it was opened to be counted")
    if survey.cap_bytes is not None and sys.platform != "linux":
        rows += ["", WALL_NONE]
    return "\n".join(rows)


def _answer(survey: Survey) -> str:
    """Return whether it fits, in how many bytes and minutes."""
    shown, cap_bytes = survey.shown, survey.cap_bytes
    recipe, held = shown.recipe, format_bytes(shown.plan.peak_bytes)
    how = f"{recipe.method} on {recipe.runtime}, weights {recipe.quant}"
    about = "not known how long it takes"
    if shown.predicted is not None:
        about = f"{in_words(shown.predicted.seconds)} for {steps_in_words(recipe.steps)}"
    if cap_bytes is None:
        return f"holds about {held}; {about} ({how})"
    cap = format_bytes(cap_bytes)
    if survey.taken is None:
        return f"does not fit: about {held} of {cap} ({how})"
    if shown.plan.peak_bytes > cap_bytes:
        return f"may fit: about {held} of {cap}; a run tries it; {about} ({how})"
    if survey.taken.changes:
        smaller = words(task_of(recipe), survey.taken.changes)
        return f"fits, with {smaller}: about {held} of {cap}; {about} ({how})"
    return f"fits: about {held} of {cap}; {about} ({how})"


def _time(survey: Survey) -> list[str]:
    """Return what fits into the time that was named."""
    recipe, predicted, fit = survey.shown.recipe, survey.shown.predicted, survey.steps_in_time
    if recipe.time_seconds is None:
        return []
    time = format_seconds(recipe.time_seconds)
    if fit is None or predicted is None:
        return [f"it is not known how many steps fit into {time}; the run finds out and ends in it"]
    if fit >= predicted.steps:
        return [f"all {recipe.steps} steps fit into {time}"]
    return [f"about {fit} of {recipe.steps} steps fit into {time}; the schedule is fitted to them"]


def _held(choice: Choice) -> list[str]:
    """Return the largest phase and what it holds most of."""
    phase = max(choice.plan.phases, key=lambda phase: phase.bytes)
    most = sorted(phase.lines, key=lambda line: -line.bytes)[:_LINES]
    rows = [f"{f'most while it does {phase.name!r}':<34}{format_bytes(phase.bytes):>12}"]
    return rows + [f"  {line.name:<32}{format_bytes(line.bytes):>12}" for line in most]


def _folder(survey: Survey) -> str:
    return f"run folder, at most {needs_in_words(survey.folder)}"


def _ladder(survey: Survey) -> list[str]:
    """Return what a run gives up next where memory does not suffice, with the bytes it then has."""
    before, *rungs = survey.choices[survey.choices.index(survey.shown) :]
    rows = []
    for rung in rungs[:_RUNGS]:
        more = {n: v for n, v in rung.changes.items() if before.changes.get(n) != v}
        smaller = words(task_of(rung.recipe), more)
        rows.append(f"  if memory runs short, {smaller}: {format_bytes(rung.plan.peak_bytes)}")
        before = rung
    return rows


def _table(survey: Survey) -> list[str]:
    """Return every choice as a row."""
    titled = [s for s in task_of(survey.asked.recipe).savings if s.title]
    head = ["method", "runtime", "weights", *(saving.title for saving in titled), "bytes"]
    table = [[*head, "seconds a step", "passes", "quality, measured", "bytes by", ""]]
    for choice in survey.choices:
        recipe, plan, found = choice.recipe, choice.plan, choice.record(survey.cap_bytes)
        fits = "" if survey.cap_bytes is None else "fits" if found["fits"] else "too large"
        table.append(
            [
                *(recipe.method, recipe.runtime, recipe.quant),
                *(_cell(getattr(recipe, saving.key)) for saving in titled),
                format_bytes(plan.peak_bytes),
                choice.pace,
                found["passes_per_step"],
                found["quality"],
                plan.source,
                fits,
            ]
        )
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _cell(value: object) -> str:
    """Return the cell of a value: a switch as yes or no, no limit as `all`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "all" if value is None else str(value)
