"""A run in a container: its cap is at most what the container can give."""

from dataclasses import replace
from typing import Any

from edge_train.errors import InputError
from edge_train.memory.machine import Limit, caps_this_machine, machine_bytes, memory_limit
from edge_train.memory.plan import Plan, surely_above
from edge_train.recipe import Recipe
from edge_train.units import format_bytes


def is_about_host(recipe: Recipe) -> bool:
    """Return whether a run's cap, named or not, is surely about the memory of this machine."""
    return recipe.host_cap_bytes is not None or caps_this_machine(recipe.device)


def fitted(recipe: Recipe, limit: Limit | None = None) -> tuple[Recipe, list[str]]:
    """Return a recipe with a cap that can be held here, and what the user should know, a line each.

    A container's limit is certain, so a cap beyond it is lowered; a machine may have swap, so there
    it is only said.

    Args:
      limit: of the container; looked up if not given.
    """
    if not is_about_host(recipe):
        return recipe, []
    name = "cap_bytes" if recipe.host_cap_bytes is None else "host_cap_bytes"
    cap_bytes: int | None = getattr(recipe, name)
    limit = limit or memory_limit()
    if cap_bytes is None:
        return recipe, [] if limit is None else [f"{limit.words()} of memory"]
    if limit is not None:
        if cap_bytes <= limit.room_bytes:
            return recipe, [f"{limit.words()} of memory"]
        changes: dict[str, Any] = {name: limit.room_bytes}
        return replace(recipe, **changes), [
            f"{limit.words()}, --mem {format_bytes(cap_bytes)} is more than a run may hold in it; "
            f"the cap is {format_bytes(limit.room_bytes)}, nineteen twentieths"
        ]
    total = machine_bytes()
    if total is None or cap_bytes <= total:
        return recipe, []
    return recipe, [
        f"--mem {format_bytes(cap_bytes)} is more than this machine has, {format_bytes(total)}; "
        "the run stops, and can be resumed, should that run short"
    ]


def check_container(recipe: Recipe, plan: Plan, limit: Limit | None = None) -> None:
    """Refuse a run without a cap that its container surely cannot hold.

    Args:
      limit: of the container; looked up if not given.

    Raises:
      InputError: naming the limit.
    """
    limit = limit or memory_limit()
    capped = recipe.cap_bytes is not None or recipe.host_cap_bytes is not None
    if limit is None or capped or not is_about_host(recipe) or not surely_above(plan, limit.bytes):
        return
    largest = ", ".join(f"{line.name} {format_bytes(line.bytes)}" for line in plan.largest)
    raise InputError(
        f"plan needs {format_bytes(plan.peak_bytes)}, {limit.words()} ({limit.folder}). Largest: "
        f"{largest}. Start it with more memory; `edge-train plan --all` lists every line and every "
        "smaller way."
    )
