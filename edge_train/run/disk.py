"""What a run folder will need on its disk at most, and whether it is there before a run begins."""

import shutil
from pathlib import Path

from edge_train.errors import InputError
from edge_train.memory.footprint import PlanLine
from edge_train.memory.plan import Plan
from edge_train.recipe import Recipe
from edge_train.units import format_bytes

# A line of the journal without the numbers that a method adds; the longest that runs wrote is 330.
_STEP_BYTES = 350
_NUMBER_BYTES = 26  # of a float in JSON, with its comma
_READINGS_BYTES = 500_000  # of memory, in a run of a day
_REPORT_BYTES = 300_000  # two files, recipe, plan, lock, and one of them in writing
_PAGE_ROWS_BYTES = 100_000


def folder_needs(recipe: Recipe, plan: Plan) -> tuple[PlanLine, ...]:
    """Return what the run folder of a recipe will hold at most, its defaults filled in."""
    steps = recipe.steps or 0
    return (
        *plan.folder,
        PlanLine(f"journal of {steps:,} steps", steps * step_bytes(recipe)),
        PlanLine("readings of memory, report", _READINGS_BYTES + _REPORT_BYTES + _PAGE_ROWS_BYTES),
    )


def step_bytes(recipe: Recipe) -> int:
    """Return what a step adds to the journal at most.

    A forward-only step has a number for each loss that it compares; one that trains block after
    block has a loss for each of at most a few dozen blocks.
    """
    queries = getattr(recipe, "queries", None) or 0
    numbers = queries * (getattr(recipe, "sides", None) or 1) + 1
    return _STEP_BYTES + _NUMBER_BYTES * numbers


def needs_in_words(lines: tuple[PlanLine, ...]) -> str:
    """Return the sum of lines and each of them, for people."""
    parts = ", ".join(f"{line.name} {format_bytes(line.bytes)}" for line in lines if line.bytes)
    return f"{format_bytes(sum(line.bytes for line in lines))} ({parts})"


def check_disk(recipe: Recipe, name: str, plan: Plan) -> None:
    """Refuse a run whose folder its disk cannot hold. A quota of a user is not known here.

    Args:
      recipe: its defaults filled in.
      name: of the folder under `runs`, where the recipe names none.

    Raises:
      InputError: there is less room than the run folder may need.
    """
    folder = Path(recipe.out).expanduser() if recipe.out is not None else Path("runs", name)
    lines = folder_needs(recipe, plan)
    place = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
    except OSError:
        return  # whoever makes the folder says what is wrong
    if sum(line.bytes for line in lines) > free:
        raise InputError(
            f"the run folder {folder} may need {needs_in_words(lines)}, and its disk has "
            f"{format_bytes(free)} left; make room, or name a folder on another disk with --out."
        )
