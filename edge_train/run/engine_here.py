"""Whether the engine of a run is installed here, and what can be done with the run where not."""

from pathlib import Path

from edge_train.errors import EdgeTrainError, RunFolderError
from edge_train.recipe import Recipe, read_toml
from edge_train.records.folder import RunFolder
from edge_train.tasks import open_job, recipe_of, task_of
from edge_train.tasks.begun import inherited


def lacks_engine(recipe: Recipe) -> tuple[str, ...]:
    """Return the packages that the engine of a run needs and that are not installed."""
    use = task_of(recipe).all_uses().get(recipe.runtime)
    return use.missing if use is not None else ()


def refuse_without_engine(folder: Path, recipe: Recipe, missing: tuple[str, ...]) -> None:
    """Refuse to go on with a run whose engine is not here: no other one computes its bits.

    Raises:
      RunFolderError: as described.
    """
    instead = _new_run(folder, recipe)
    begin = f"; or begin a new run from what it learned, {instead}" if instead else ""
    raise RunFolderError(
        f"{folder}: it was made by runtime {recipe.runtime!r}, which needs {missing[0]}, and that "
        f"is not installed; `pip install edge-train[desk]` brings it{begin}."
    )


def _new_run(folder: Path, recipe: Recipe) -> str:
    """Return how a new run begins with what this one learned here; empty where none can."""
    written = read_toml(RunFolder(folder).recipe)
    values = inherited(task_of(recipe), folder, written, {})
    try:
        found = open_job(recipe_of({**values, "start": str(folder)}, "")).recipe
    except EdgeTrainError:
        return ""
    return f"with runtime {found.runtime}: `edge-train run --from {folder}`"
