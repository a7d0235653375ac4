"""Help of `run`, `plan` and `init`, made from the keys of recipes: short, or all of one task."""

from collections.abc import Sequence

from edge_train.methods import declared_keys, methods
from edge_train.recipe import GROUPS, Key
from edge_train.runtimes.engine import engines
from edge_train.tasks import tasks
from edge_train.tasks.task import Task

_TITLES = dict(
    zip(
        GROUPS,
        ("data and model", "method", "memory", "engine", "evaluation", "pictures", "the run"),
        strict=True,
    )
)
_EXAMPLES = """examples:
  edge-train run photos/ --token "<my-dog>" --class dog --mem 8GB
  edge-train run reviews.csv --model MODEL_FOLDER --mem 2GB
  edge-train run --recipe my.toml"""

_PLAN_ONLY = """  --all                       every phase, line by line, and every way to run it
  --rehearse                  run it once in small, and measure; takes as long as that does
"""
_RUN_ONLY = """  --resume RUN                go on with a run
  --go-on                     begin the run in --out, or go on with it
  --json                      events for programs, on standard output
  --report-to tensorboard     files for TensorBoard, in RUN/tensorboard
  --fleet JOURNAL             the steps of a fleet, from its server's journal
  --watch                     a local page of the run, while it goes on
"""
_OTHERS = {
    "run": _RUN_ONLY,
    "plan": _PLAN_ONLY + "  --json                      the same for programs, as one object\n",
    "init": "",
}


def help_text(verb: str, task: Task | None) -> str:
    """Return the help of `run`, `plan` or `init`: the common options, or all of one task."""
    if task is None:
        keys = {k.name: k for t in tasks.all().values() for k in t.recipe.declared().values()}
        shown = [key for key in keys.values() if key.common]
        kinds = "\n".join(f"  {t.name:<15} {t.says}" for t in tasks.all().values())
        return (
            f"usage: edge-train {verb} [DATA] [options]\n\n"
            "DATA decides the task: a folder of photos, a text, a table, arrays.\n\n"
            f"tasks (--task, else inferred from DATA):\n{kinds}\n\n"
            f"common options:\n{_table(shown)}\n"
            f"  --recipe FILE.toml          a run as a file\n{_OTHERS[verb]}\n"
            f"all options of a task: edge-train {verb} --task TASK --help\n\n{_EXAMPLES}\n"
        )
    parts = [f"usage: edge-train {verb} [DATA] --task {task.name} [options]\n\n{task.says}\n"]
    keys = {**task.recipe.declared(), **declared_keys()}
    for group, title in _TITLES.items():
        if own := [key for key in keys.values() if key.group == group]:
            parts.append(f"{title}:\n{_table(own, task)}")
    return "\n".join([*parts, *([f"of plan:\n{_PLAN_ONLY}"] if verb == "plan" else [])])


def _table(keys: Sequence[Key], task: Task | None = None) -> str:
    rows = []
    for key in keys:
        flag = key.spellings[0] + ("" if key.is_switch else f" {_placeholder(key)}")
        off = "switch off: " if key.is_switch and key.default is True else ""
        rows.append(f"  {flag:<26}  {off}{key.help}{_choices(key, task)}")
    return "\n".join(rows) + "\n"


def _placeholder(key: Key) -> str:
    """Return what stands for a value in help."""
    if key.is_bytes:
        return "SIZE"
    if key.is_path:
        return "PATH"
    return {int: "N", float: "X"}.get(key.kind, "WORD" if key.kind is str else "LIST")


def _choices(key: Key, task: Task | None) -> str:
    """Return what a key may be and what it is where nobody says."""
    names: tuple[str, ...] = key.choices
    if task is not None and key.name == "method":
        names = ("auto", *task.able())
    elif task is not None and key.name == "runtime":
        names = ("auto", *task.all_uses())
    elif task is not None and key.name == "quant":
        uses = task.all_uses().values()
        names = ("auto", *dict.fromkeys(quant for use in uses for quant in use.quants))
    elif key.name == "method":
        names = ("auto", *list(methods.names())[:5], "...")
    elif key.name == "runtime":
        names = ("auto", *engines.names())
    said = f": {', '.join(names)}" if names else ""
    default = key.default
    if task is not None and default is None:
        default = task.usual(key.name)
    plain = default not in (None, "", (), True, False) and not key.is_switch
    return said + (f" (default: {default})" if plain else "")
