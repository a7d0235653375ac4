"""Keys of tasks that are learned one after the other, without the data of the old ones."""

from __future__ import annotations

from dataclasses import dataclass

from edge_train.recipe import Recipe, key


@dataclass(frozen=True, kw_only=True)
class ContinualKeys(Recipe):
    """Of a run that goes on from what another one learned, and of what it leaves for the next."""

    next: str | None = key(
        help="run whose tasks are kept while this one learns another",
        is_path=True,
        beside_recipe=True,
        group="data",
        common=True,
    )
    continual: str = key(
        "cuber",
        help="how old tasks are kept: gpm: what their inputs span is not changed; cuber: but where "
        "it helps them, too; none: not at all",
        choices=("cuber", "gpm", "none"),
    )
    protected_energy: float = key(
        0.97,
        help="share of the energy of a task's inputs that is protected of the first task; "
        "0.003 more of each later one",
        low=0.01,
        high=1,
    )
    most_directions: int = key(
        256, help="most directions that a task adds to what a layer protects", low=1, high=65536
    )
    kept_examples: int = key(
        200,
        help="test samples of each task that the run keeps, to measure by them what later tasks "
        "make of it; 0: none",
        low=0,
        high=100_000,
        group="evaluation",
    )
