"""A new run that starts from what another one learned: `start` (`--from`) becomes a task's key."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from edge_train.errors import InputError
from edge_train.recipe import Recipe
from edge_train.records.folder import RunFolder
from edge_train.records.history import read_records
from edge_train.tasks.task import Task

R = TypeVar("R", bound=Recipe)
# Of another run's recipe: its folder, what it was allowed to hold, what it started from itself.
NOT_INHERITED = (
    *("out", "cap_bytes", "mem", "host_cap_bytes", "host_mem"),
    *("time_seconds", "time", "when", "start", "next"),
)
_ADAPTERS = "adapter_config.json"


def is_run(path: Path) -> bool:
    """Return whether a folder is that of a run."""
    return RunFolder(path).recipe.is_file()


def begun_from(task: Task, recipe: R) -> R:
    """Return a recipe whose `start` is a file that its task reads, or has become its model.

    Raises:
      InputError: `start` is nothing that a run of this task can start from.
    """
    if recipe.start is None:
        return recipe
    path = Path(recipe.start).expanduser()
    if not path.exists():
        raise InputError(f"--from {recipe.start}: there is no such file or folder.")
    if not task.learned:
        raise InputError(f"--from is not for task {task.name!r}; leave it out.")
    if (path / _ADAPTERS).is_file() and "start" not in task.learned.values():
        if not is_run(path.parent):
            raise InputError(
                f"--from {recipe.start}: adapters alone cannot be started from; name the run that "
                "made them, whose model has them in it, or merge them into their model."
            )
        path = path.parent
    key = "start" if (path / _ADAPTERS).is_file() else next(iter(task.learned.values()))
    if is_run(path):
        kind, path = output_of(task, path)
        key = task.learned[kind]
    if key == "start":
        return replace(recipe, start=str(path))
    if recipe.model not in ("", type(recipe).declared()["model"].default):
        raise InputError(
            f"--from {recipe.start} names the model already; leave --model {recipe.model} out."
        )
    changed: dict[str, Any] = {key: str(path), "start": None}
    return replace(recipe, **changed)


def key_of(task: Task, run: Path) -> str:
    """Return the key that takes what a run of a task learned, as far as its folder says."""
    found = (key for kind, key in task.learned.items() if (run / kind).exists())
    return next(found, next(iter(task.learned.values()), "start"))


def output_of(task: Task, run: Path, flag: str = "--from") -> tuple[str, Path]:
    """Return what a run of a task learned: its kind, and where it is.

    Args:
      flag: by which the run was named.

    Raises:
      InputError: it is of another task, or has written nothing that is still there.
    """
    records = read_records(run)
    if (other := records[0]["facts"].get("task")) != task.name:
        raise InputError(f"{flag} {run}: it is a run of task {other!r}, not of {task.name!r}.")
    for record in reversed(records):
        outputs = record.get("outputs", {}) if record["kind"] == "end" else {}
        for kind in task.learned:
            if kind in outputs and (run / outputs[kind]).exists():
                return kind, run / str(outputs[kind])
    raise InputError(
        f"{flag} {run}: it has not written what it learned yet; go on first, with `edge-train run "
        f"--resume {run}`."
    )
