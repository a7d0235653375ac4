"""From a file or folder to the task that it is data of; every task is asked."""

from pathlib import Path

from edge_train.errors import InputError
from edge_train.registry import load
from edge_train.tasks import tasks
from edge_train.tasks.task import Task


def infer(path: Path) -> tuple[Task, str]:
    """Return the task of some data, and what the data is in words.

    Raises:
      InputError: it does not exist, no task takes it, or several do; their `--task` lines are in
        the message.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    found = []
    for task in tasks.all().values():
        try:
            what = load(task.accepts)(path) if task.accepts is not None else None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        if what is not None:
            found.append((task, what))
    if len(found) == 1:
        return found[0]
    able = [task for task, _ in found] or list(tasks.all().values())
    lines = "\n".join(f"  edge-train run {path} --task {task.name}    {task.says}" for task in able)
    if found:
        raise InputError(f"{path} may be data of {len(found)} tasks; say which:\n{lines}")
    raise InputError(f"{path} looks like data of no task; say which it is of:\n{lines}")
