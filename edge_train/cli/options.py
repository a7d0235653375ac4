"""From the keys of a recipe to flags, and from words to a recipe; every fault is found at once."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from edge_train.errors import InputError
from edge_train.methods import declared_keys, methods
from edge_train.recipe import GROUPS, Key, Recipe, as_mapping, beside, read_toml
from edge_train.registry import nearest
from edge_train.runtimes.engine import engines
from edge_train.tasks import DEFAULT, recipe_of, tasks
from edge_train.tasks.infer import infer
from edge_train.tasks.task import Task
from edge_train.units import LEAST

_MISSING = object()  # a flag that nothing follows
# what diffusers' scripts also take and we always do, or cannot do
_ALWAYS = ("--gradient-checkpointing", "--center-crop", "--cache-latents")
_REFUSED = {
    "--scale-lr": "give the scaled --learning-rate itself",
    "--report-to": "the run folder has journal.jsonl and report.html; nothing is sent anywhere",
    "--push-to-hub": "nothing is uploaded",
    "--gradient-accumulation-steps": "use --samples, and --micro-batch for a part of them",
    "--save-steps": "checkpoints are written every few seconds",
    "--checkpointing-steps": "checkpoints are written every few seconds",
    "--num-train-epochs": "use --steps",
    "--repeats": "use --steps",
    "--lr-warmup-steps": "there is no warm-up",
    "--enable-xformers-memory-efficient-attention": "torch's own attention is used",
    "--use-8bit-adam": "the optimizer state of a token is a few kilobytes",
    "--allow-tf32": "torch's own default is used",
}
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


class Words:
    """The words behind `run` or `plan`.

    Attributes:
      recipe, resume: files that were named.
      as_json: whether events go to standard output.
      given: recipe keys and their values, as they were typed.
      task: that was named or inferred; None where a recipe's file or nothing says.
      understood: what the data is, in words, where that was inferred.
    """

    def __init__(self, words: Sequence[str], *, resumable: bool) -> None:
        self.given: dict[str, Any] = {}
        self._typed: dict[str, str] = {}  # key -> flag
        self.understood = ""
        self._faults: list[str] = []
        parser = _Parser(prog="edge-train run", add_help=False, allow_abbrev=False)
        parser.add_argument("data_path", nargs="?")
        parser.add_argument("--task", nargs="?", const=_MISSING)
        parser.add_argument("--recipe", nargs="?", const=_MISSING)
        parser.add_argument("--json", action="store_true")
        parser.add_argument("-h", "--help", action="store_true")
        if resumable:
            parser.add_argument("--resume", "--resume-from-checkpoint", nargs="?", const=_MISSING)
        for flag in _ALWAYS:
            parser.add_argument(flag, action="store_true")
        flags = _flags()
        for flag, keys in flags.items():
            first = keys[0]
            switch = first.is_switch
            many = get_origin(first.kind) is tuple and get_args(first.kind)[1:] == (...,)
            rule: dict[str, Any] = {"action": "store_true"} if switch else {"nargs": "?"}
            if not switch:
                rule["const"] = _MISSING
            if many:
                rule["action"] = "append"
            parser.add_argument(flag, dest=f"key {flag}", default=None, **rule)
        found, unknown = parser.parse_known_args([_spelled(word) for word in words])
        self.help = found.help
        self.as_json = found.json
        self.resume = self._file("--resume", getattr(found, "resume", None))
        self.recipe = self._file("--recipe", found.recipe)
        self._named = found.task
        if found.task is _MISSING:
            self._faults.append(_missing("--task"))
            self._named = None
        for word in unknown:
            self._faults.append(_unknown(word, [*flags, "--task", "--recipe", "--resume"]))
        for flag, keys in flags.items():
            value = getattr(found, f"key {flag}")
            if value is _MISSING or (isinstance(value, list) and _MISSING in value):
                self._faults.append(_missing(flag))
            elif value is not None:
                key = keys[0]
                if isinstance(value, list):
                    value = [str(one) for one in value]
                elif key.is_switch:
                    value = not key.default
                else:
                    value = key.from_text(value)
                self.given[key.name] = value
                self._typed[key.name] = flag
        self._data = found.data_path
        if unknown and self._data is not None and not Path(self._data).expanduser().exists():
            self._data = None  # the value of a flag that is not known

    def _file(self, flag: str, value: Any) -> Path | None:
        if value is _MISSING:
            self._faults.append(_missing(flag))
            return None
        return Path(value) if value is not None else None

    def named_task(self) -> Task | None:
        """Return the task that `--task` names."""
        return tasks.get(self._named) if self._named is not None else None

    def task(self, written: Mapping[str, Any]) -> Task:
        """Return the task: named, written in a recipe's file, or that of the data."""
        if self._named is not None:
            return tasks.get(self._named)
        if "task" in written:
            return tasks.get(str(written["task"]))
        if self._data is not None and self.recipe is None:
            task, what = infer(Path(self._data).expanduser())
            self.understood = f"{self._data}: {what}; task {task.name}"
            return task
        return tasks.get(DEFAULT)

    def read(self) -> Recipe:
        """Return the recipe of a file, where one is named, and of the words.

        Raises:
          InputError: everything that is wrong with it, a line each.
        """
        written = read_toml(self.recipe) if self.recipe is not None else {}
        try:
            task = self.task(written)
        except InputError as error:
            self.refuse(str(error))
            raise
        given = {"task": task.name, **self.given}
        if self._data is not None:
            given[task.data] = self._data
        base = tasks.get(str(written.get("task", task.name))).name if written else task.name
        if base != task.name:
            self.refuse(f"{self.recipe} is of task {base!r}, --task says {task.name!r}.")
        try:
            recipe = recipe_of(written, str(self.recipe)) if written else None
            recipe = beside(recipe, self.recipe.parent) if recipe and self.recipe else None
            words = recipe_of(given, "")
        except InputError as error:
            self.refuse(str(error))
            raise
        self.refuse()
        if recipe is None:
            return words
        names = {one.name for one in words.declared().values() if one.name in given}
        changed = {name: getattr(words, name) for name in names}
        return _replaced(recipe, changed, words.options)

    def caps(self) -> dict[str, int]:
        """Return what may change of a run that goes on: its caps.

        Raises:
          InputError: another key was typed.
        """
        others = [name for name in self.given if name not in ("cap_bytes", "host_cap_bytes")]
        typed = [self._typed[name] for name in others]
        typed += [str(self._data)] * (self._data is not None)
        typed += ["--recipe"] * (self.recipe is not None) + ["--task"] * (self._named is not None)
        for word in typed:
            self._faults.append(
                f"--resume goes on with the run as it was recorded, so {word} cannot be given; "
                "leave it out. Only --mem and --host-mem can change."
            )
        keys = Recipe.declared()
        found: dict[str, int] = {}
        for name in self.given.keys() - set(others):
            try:
                found[name] = keys[name].checked(self.given[name], "")
            except InputError as error:
                self._faults.append(str(error))
        self.refuse()
        return found

    def refuse(self, *more: str) -> None:
        """Raise everything that was found wrong so far.

        Raises:
          InputError: a line for each fault.
        """
        lines = [*self._faults, *(line for text in more for line in text.split("\n"))]
        if lines:
            raise InputError("\n".join(dict.fromkeys(lines)))


class _Parser(argparse.ArgumentParser):
    """argparse whose own complaints are errors like others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `edge-train run --help`.")


def _replaced(recipe: Recipe, changed: Mapping[str, Any], options: Mapping[str, Any]) -> Recipe:
    values = {**as_mapping(recipe), **changed}
    values["options"] = {**recipe.options, **options}
    return type(recipe)(**values)


def _flags() -> dict[str, list[Key]]:
    """Return the keys behind every flag, hyphens and underscores alike; one is that of a task."""
    found: dict[str, list[Key]] = {}
    every = [key for task in tasks.all().values() for key in task.recipe.declared().values()]
    for key in [*every, *declared_keys().values()]:
        for spelling in key.spellings:
            found.setdefault(_spelled(spelling), []).append(key)
    return found


def _spelled(word: str) -> str:
    """Return a word with the hyphens of a flag: `--train_data_dir=x` is `--train-data-dir=x`."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value


def _missing(flag: str) -> str:
    if flag == "--mem":
        return f"--mem needs a size after it, such as 8GB. The least that works is {LEAST}."
    return f"{flag} needs a value after it."


def _unknown(word: str, known: Sequence[str]) -> str:
    flag = word.partition("=")[0]
    if not flag.startswith("-"):
        return f"{word!r} is one word too many; name one file or folder."
    if flag in _REFUSED:
        return f"{flag} cannot be honored: {_REFUSED[flag]}."
    near = nearest(flag, known).partition("? There are ")[0]
    return f"unknown flag {flag}; " + (
        f"{near}?" if near.startswith("did") else "see `edge-train run --help`."
    )


def help_text(verb: str, task: Task | None) -> str:
    """Return the help of `run` or `plan`: the common options, or all of one task."""
    if task is None:
        keys = {k.name: k for t in tasks.all().values() for k in t.recipe.declared().values()}
        shown = [key for key in keys.values() if key.common]
        kinds = "\n".join(f"  {t.name:<15} {t.says}" for t in tasks.all().values())
        return (
            f"usage: edge-train {verb} [DATA] [options]\n\n"
            "DATA says what is learned: a folder of photos, a text, a table, arrays.\n\n"
            f"tasks (--task, else inferred from DATA):\n{kinds}\n\n"
            f"common options:\n{_table(shown)}\n"
            "  --recipe FILE.toml          a run as a file\n"
            "  --resume RUN                go on with a run\n"
            "  --json                      events for programs, on standard output\n\n"
            f"all options of a task: edge-train {verb} --task TASK --help\n\n{_EXAMPLES}\n"
        )
    parts = [f"usage: edge-train {verb} [DATA] --task {task.name} [options]\n\n{task.says}\n"]
    keys = {**task.recipe.declared(), **declared_keys()}
    for group, title in _TITLES.items():
        if own := [key for key in keys.values() if key.group == group]:
            parts.append(f"{title}:\n{_table(own, task)}")
    return "\n".join(parts)


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
        default = task.defaults.get(("*", "default"), {}).get(key.name)
    plain = default not in (None, "", (), True, False) and not key.is_switch
    return said + (f" (default: {default})" if plain else "")
