"""From a file or folder to the task that it is data of; every task is asked."""

from pathlib import Path

from edge_train.errors import EdgeTrainError, InputError
from edge_train.registry import load
from edge_train.tasks import tasks
from edge_train.tasks.task import Task


def infer(path: Path) -> tuple[Task, str]:
    """Return the task of some data, and what the data is in words.

    Raises:
      InputError: it does not exist, cannot be read, no task takes it, or several do; their `--task`
        lines are in the message.
    """
    found: list[tuple[Task, str]] = []
    broken: list[str] = []
    try:
        path = path.expanduser()
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder.")
        if path.is_file() and not path.stat().st_size:
            raise InputError(f"{path}: the file is empty; name another one.")
        if path.is_dir() and not any(path.iterdir()):
            raise InputError(f"{path}: the folder is empty; name another one.")
        for task in tasks.all().values():
            if (what := _accepted(task, path, broken)) is not None:
                found.append((task, what))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except RuntimeError as error:  # of `~`
        raise InputError(f"{path}: there is no such user here.") from error
    if len(found) == 1:
        task, what = found[0]
        return task, "; ".join([what, *broken])
    if found:
        start = f"{path} may be data of {len(found)} tasks; say which:"
        words, able = f"edge-train run {path} --task", [task for task, _ in found]
    else:
        start = (
            f"{path} looks like data of no task; say which it is of: put one of these behind "
            f"`edge-train run {path}`:"
        )
        words, able = "--task", list(tasks.all().values())
    lines = "\n".join(f"  {words} {task.name}    {task.says}" for task in able)
    raise InputError("\n".join([*broken, start, lines]))


def _accepted(task: Task, path: Path, broken: list[str]) -> str | None:
    """Return what some data is for a task; code of another package may raise anything.

    Raises:
      OSError: a file or folder cannot be read.
      EdgeTrainError: the data is damaged, which is no fault of the task.
    """
    if task.accepts is None:
        return None
    try:
        what: str | None = load(task.accepts)(path)
    except (OSError, EdgeTrainError):
        raise
    except Exception as error:  # noqa: BLE001 - what goes wrong in one task stays there
        broken.append(
            f"task {task.name!r} was not asked ({task.accepts}: {type(error).__name__}: {error})"
        )
        return None
    return what
