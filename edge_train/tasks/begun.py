"""A new run that starts from what another one learned: `start` (`--from`) becomes a task's key."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from edge_train.errors import InputError
from edge_train.formats.gguf.adapter_file import is_adapter_file
from edge_train.methods import methods
from edge_train.recipe import Recipe, read_toml
from edge_train.records.folder import RunFolder
from edge_train.records.history import read_records
from edge_train.tasks.task import Task, readers_of

R = TypeVar("R", bound=Recipe)
# Of another run's recipe: its folder, what it was allowed to hold, what it started from itself.
NOT_INHERITED = (
    *("out", "cap_bytes", "mem", "host_cap_bytes", "host_mem"),
    *("time_seconds", "time", "when", "start", "next"),
)
# Of the engine that it was computed by, where another one takes its place.
_OF_ENGINE = ("runtime", "device", "quant", "dtype", "dropout")
_ADAPTERS = "adapter_config.json"
_PARTS = (_ADAPTERS, "adapter_model.safetensors")  # of the folder of an adapter


def is_run(path: Path) -> bool:
    """Return whether a folder is that of a run."""
    return RunFolder(path).recipe.is_file()


def who_named_method(asked: Recipe) -> str:
    """Return who named the method of a recipe: the run that it starts from, or else the user."""
    named = asked.start or getattr(asked, "next", None)
    if named is None or not is_run(run := Path(named).expanduser()):
        return "asked for"
    same = read_toml(RunFolder(run).recipe).get("method") == asked.method
    return f"that of the run {named}, which this one starts from" if same else "asked for"


def inherited(
    task: Task, run: Path, written: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keys of another run that a new one has, too, where nothing else was typed.

    A key that what was typed has no use for is not among them: nobody could leave it out.

    Args:
      task: of both.
      written: the keys in the recipe of that run.
      given: keys that were typed.
    """
    left = {
        *NOT_INHERITED,
        key_of(task, run),
        *_of_engine(task, written, given),
        *_of_method(task, written, given),
        *_of_trainable(task, run, written, given),
    }
    if "steps" in {*given, *left}:
        left.add("warmup")  # a share of that run's steps, unless it was typed there
    return {name: value for name, value in written.items() if name not in left}


def _of_engine(task: Task, written: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return keys of the engine, where another one is named or that one is not installed."""
    before = written.get("runtime")
    use = task.all_uses().get(str(before))
    other = given.get("runtime", before) != before
    return _OF_ENGINE if other or use is None or use.missing else ()


def _of_method(task: Task, written: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
    """Return keys that the method which was typed, or one that it may become, does not read.

    Nor does it get a value that was another method's or preset's, where its own would be another: a
    rate, the number of steps. Another preset has all that only some methods read of its own.
    """
    before, preset = str(written.get("method")), str(written.get("preset", "default"))
    wanted = given.get("method", before)
    other = given.get("preset", preset if wanted == before else "default")
    if (wanted, other) == (before, preset):
        return set()
    able = set(task.able()) if wanted == "auto" else {str(wanted)} & methods.all().keys()
    readers = {name: set(readers_of(name)) for name in written}
    same = able if other == "default" else set[str]()
    left = {name for name, own in readers.items() if own and not (same and same <= own)}
    known = {before} & methods.all().keys()
    pairs = ({(name, preset) for name in known}, {(name, other) for name in able})
    return {"preset", *left, *task.differing(*pairs)}


def _of_trainable(
    task: Task, run: Path, written: Mapping[str, Any], given: Mapping[str, Any]
) -> set[str]:
    """Return keys of what was trained, where something else is, or where its own file says them."""
    key = task.recipe.declared().get("trainable")
    if key is None:
        return set()
    free = key.default == "auto"  # then it follows from what the run starts from
    if given.get("trainable", written.get("trainable")) != written.get("trainable"):
        return set(task.of_trainable)
    if free and key_of(task, run) == "start":
        return {"trainable", *task.of_trainable}
    changed = given.get("method", written.get("method")) != written.get("method")
    return {"trainable"} if free and changed else set()


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
    _check_whole(recipe.start, path)
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


def _check_whole(start: str, path: Path) -> None:
    """Refuse what is only made of an adapter, or a part of one.

    Raises:
      InputError: as described; what to name instead is in it.
    """
    if path.name in _PARTS and (path.parent / _ADAPTERS).is_file():
        raise InputError(
            f"--from {start}: is a file of an adapter's folder; name that: --from {path.parent}."
        )
    files = [path]
    if path.is_dir():
        whole = is_run(path) or (path / _ADAPTERS).is_file() or (path / "config.json").is_file()
        files = [] if whole else sorted(path.glob("*.gguf"))
    if not files or not all(map(is_adapter_file, files)):
        return
    what = "is" if files == [path] else f"{files[0].name} in it is"
    if is_run(path.parent):
        raise InputError(
            f"--from {start}: {what} an adapter as llama.cpp loads it; name the run that made it: "
            f"--from {path.parent}."
        )
    raise InputError(
        f"--from {start}: {what} an adapter as llama.cpp loads it, which no run starts from; name "
        "the run that made it (`edge-train run DATA --from RUN`), or its folder that peft reads "
        "(`edge-train run DATA --from RUN/adapter --model BASE`)."
    )


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
