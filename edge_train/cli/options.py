"""From the keys of a recipe to flags, and from words to a recipe; every fault is found at once."""

import argparse
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from edge_train.cli.others import Factor, understand
from edge_train.errors import InputError
from edge_train.methods import declared_keys
from edge_train.paths import check_path
from edge_train.recipe import Key, Recipe, as_mapping, beside, read_toml
from edge_train.records.folder import RunFolder
from edge_train.registry import nearest
from edge_train.tasks import DEFAULT, recipe_of, tasks
from edge_train.tasks.begun import inherited, is_run
from edge_train.tasks.infer import infer
from edge_train.tasks.task import Task
from edge_train.units import LEAST

# flags that are no keys
PLAN_ONLY = ("--all", "--rehearse")
_RUN_ONLY = ("--resume", "--go-on", "--watch", "--report-to", "--fleet")
_OTHERS = ("--task", "--recipe", "--json", *_RUN_ONLY)
# of a run that goes on
_CHANGEABLE = ("cap_bytes", "host_cap_bytes", "steps", "time_seconds", "when", "model", "start")
_MISSING = object()  # a flag that nothing follows
_DASHES = ("\u2013", "\u2014", "\u2212")  # that text programs make of hyphens


class Words:
    """The words behind `run` or `plan`.

    Attributes:
      recipe, resume: files that were named.
      as_json: whether events go to standard output.
      go_on: whether a run that is in `--out` already is gone on with.
      report_to: "tensorboard", or None.
      watch: whether a page of the run is offered beside it.
      fleet: folder of the fleet's device that this run is, or the journal of a fleet; None: none.
      given: recipe keys and their values, as they were typed.
      task: that was named or inferred; None where a recipe's file or nothing says.
      understood: what the data is, in words, where that was inferred.
    """

    def __init__(self, words: Sequence[str], *, resumable: bool) -> None:
        self.understood = ""
        self._faults: list[str] = []
        self._products: list[str] = []
        self._flags = _flags()
        parser = _parser(self._flags)
        understood = understand(words)
        spelled = _with_negatives([_spelled(word) for word in understood.words])
        self._left_out, self._hinted = understood.left_out, understood.task
        self._faults += understood.faults
        alone = [flag for flag, key in self._flags.items() if key.is_switch]
        stray = _stray(spelled, (*alone, "--json", "--watch", "--go-on", "--help"))
        self._faults += stray.values()
        found, unknown = parser.parse_known_args([word for word in spelled if word not in stray])
        for word in unknown:
            self._faults.append(_unknown(word, [*self._flags, *_OTHERS]))
        for flag in () if resumable else _RUN_ONLY:
            if getattr(found, flag[2:].replace("-", "_")):
                self._faults.append(f"{flag} is for `edge-train run` only; leave it out.")
        self.help, self.as_json = found.help, found.json
        self.report_to = self._board(found.report_to)
        self.watch = found.watch
        self.go_on = found.go_on
        self.fleet = self._file("--fleet", found.fleet)
        self.resume = self._file("--resume", found.resume)
        self.recipe = self._file("--recipe", found.recipe)
        self._named: str | None = self._value("--task", found.task)
        self._data: str | None = found.data_path
        if self._data is not None and self._is_no_path("DATA", self._data):
            self._data = None
        if unknown and self._data is not None and not os.path.exists(self._data):  # noqa: PTH110 - any text
            self._data = None  # the value of a flag that is not known
        self.given: dict[str, Any] = {}
        self._typed: dict[str, str] = {}  # key -> flag
        for flag, key in self._flags.items():
            self._note(flag, key, getattr(found, _place(flag)))
        self._products = [self._multiplied(factor) for factor in understood.factors]

    def _multiplied(self, factor: Factor) -> str:
        """Multiply a key that was given; return what was done, or note that it was not given.

        A batch in parts is what a batch of all samples is: its gradient is the mean over them.
        """
        value = self.given.get(factor.key)
        if not isinstance(value, int):
            self._faults.append(factor.fault)
            return ""
        self.given[factor.key] = product = value * factor.number
        return (
            f"{factor.typed}: {factor.key} is {value} x {factor.number} = {product}, whose "
            "gradient is the mean over all of them; --mem decides the parts"
        )

    def _note(self, flag: str, key: Key, typed: Any) -> None:
        """Keep what was typed after a flag, as the value of its key."""
        if typed is None:
            return
        if typed is _MISSING or (isinstance(typed, list) and _MISSING in typed):
            self._faults.append(_missing(flag))
            return
        if key.is_switch:
            self.given[key.name] = not key.default
        elif isinstance(typed, list):
            self.given[key.name] = typed
        else:
            self.given[key.name] = key.from_text(typed)
        self._typed[key.name] = flag

    def _value(self, flag: str, value: Any) -> str | None:
        if value is _MISSING:
            self._faults.append(_missing(flag))
            return None
        return None if value is None else str(value)

    def _file(self, flag: str, value: Any) -> Path | None:
        text = self._value(flag, _MISSING if value == "" else value)
        return None if text is None or self._is_no_path(flag, text) else Path(text)

    def _board(self, value: Any) -> str | None:
        text = self._value("--report-to", value)
        if text not in (None, "tensorboard"):
            self._faults.append(f"--report-to {text} is not known; use tensorboard.")
        return text

    def _is_no_path(self, name: str, text: str) -> bool:
        try:
            check_path(text, name)
        except InputError as error:
            self._faults.append(str(error))
            return True
        return False

    def sentences(self) -> list[str]:
        """Return what was understood of the data, and which words were left out, and why."""
        sentences = [self.understood] if self.understood else []
        if self._left_out:
            sentences.append(f"left out, since it is done anyway: {', '.join(self._left_out)}")
        return [*sentences, *self._products]

    def named_task(self) -> Task | None:
        """Return the task that `--task` names."""
        return tasks.get(self._named) if self._named is not None else None

    def task(self, written: Mapping[str, Any]) -> Task:
        """Return the task: named, written in a recipe's file, or that of the data."""
        if self._named is not None:
            return tasks.get(self._named)
        if "task" in written:
            return tasks.get(str(written["task"]))
        if self._hinted:
            return tasks.get(self._hinted)
        data = self._data if self._data is not None else self.given.get("data")
        if data is not None and self.recipe is None:
            task, what = infer(Path(data))
            self.understood = f"{data}: {what}; task {task.name}"
            return task
        return tasks.get(DEFAULT)

    def read(self) -> Recipe:
        """Return the recipe of a file, where one is named, and of the words.

        Raises:
          InputError: everything that is wrong with it, a line each.
        """
        written = read_toml(self.recipe) if self.recipe is not None else self._inherited()
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
            where = self.recipe or self.given.get("start") or self.given.get("next")
            self.refuse(f"{where} is of task {base!r}, --task says {task.name!r}.")
        try:
            recipe = recipe_of(written, str(self.recipe)) if written else None
            if recipe is not None and self.recipe is not None:
                recipe = beside(recipe, self.recipe.parent)
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

    def _inherited(self) -> dict[str, Any]:
        """Return the keys of the run that `--from` or `--next` names: a new one has them, too."""
        named = self.given.get("start", self.given.get("next"))
        run = Path(str(named)).expanduser()
        if named is None or not is_run(run):
            return {}
        written = read_toml(RunFolder(run).recipe)
        task = tasks.get(str(written.get("task", DEFAULT)))
        return inherited(task, run, written, self.given)

    def caps(self) -> dict[str, Any]:
        """Return what is said of a run that goes on: caps, steps, code, and where its files lie.

        Raises:
          InputError: another key was typed.
        """
        code = {key.name: key for key in self._flags.values() if key.is_code}
        others = [name for name in self.given if name not in (*_CHANGEABLE, *code)]
        typed = [self._typed[name] for name in others]
        typed += [str(self._data)] * (self._data is not None)
        typed += ["--recipe"] * (self.recipe is not None) + ["--task"] * (self._named is not None)
        for word in typed:
            self._faults.append(
                f"--resume goes on with the run as it was recorded, so {word} cannot be given; "
                "leave it out. Only --mem, --host-mem, --steps, --time and --when can change, and "
                "--model and --from where the same files lie elsewhere now."
            )
        keys = {**Recipe.declared(), **code}
        found: dict[str, Any] = {}
        for name in self.given.keys() - set(others):
            try:
                found[name] = keys[name].checked(self.given[name], "")
            except InputError as error:
                self._faults.append(str(error))
        self.refuse()
        return found

    def begun(self, recipe: Recipe) -> Path | None:
        """Return the run in `--out` that `--go-on` goes on with; None where it is to begin.

        Raises:
          InputError: no `--out` is named.
        """
        if not self.go_on:
            return None
        if recipe.out is None:
            raise InputError("--go-on needs --out, the folder of the run that begins or goes on.")
        run = RunFolder(Path(recipe.out).expanduser())
        return run.path if run.recipe.is_file() or run.journal.is_file() else None

    def refuse(self, *more: str) -> None:
        """Raise everything that was found wrong so far.

        Raises:
          InputError: a line for each fault, then one for what was understood as something else.
        """
        lines = [*self._faults, *(line for text in more for line in text.split("\n"))]
        if lines:
            lines += filter(None, self._products)
            raise InputError("\n".join(dict.fromkeys(lines)))


class _Parser(argparse.ArgumentParser):
    """argparse whose own complaints are errors like others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `edge-train run --help`.")


def _replaced(recipe: Recipe, changed: Mapping[str, Any], options: Mapping[str, Any]) -> Recipe:
    values = {**as_mapping(recipe), **changed}
    values["options"] = {**recipe.options, **options}
    return type(recipe)(**values)


def _flags() -> dict[str, Key]:
    """Return a key behind every flag, hyphens and underscores alike.

    A flag is of one key name, whichever task declares it, so any of them reads what was typed.
    """
    every = [key for task in tasks.all().values() for key in task.recipe.declared().values()]
    keys = [*every, *declared_keys().values()]
    return {_spelled(spelling): key for key in reversed(keys) for spelling in key.spellings}


def _parser(flags: Mapping[str, Key]) -> "_Parser":
    """Return a parser that takes every flag as text; what it stands for is the key's matter."""
    parser = _Parser(prog="edge-train run", add_help=False, allow_abbrev=False)
    parser.add_argument("data_path", nargs="?")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--json", action="store_true")
    for flag in ("--watch", "--go-on"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--task", "--recipe", "--report-to", "--fleet"):
        parser.add_argument(flag, nargs="?", const=_MISSING)
    parser.add_argument("--resume", "--resume-from-checkpoint", nargs="?", const=_MISSING)
    for flag, key in flags.items():
        if key.is_switch:
            parser.add_argument(flag, dest=_place(flag), action="store_true", default=None)
        else:
            action = "append" if key.is_repeated else "store"
            parser.add_argument(flag, dest=_place(flag), nargs="?", const=_MISSING, action=action)
    return parser


def _place(flag: str) -> str:
    """Return where argparse keeps what follows a flag; no flag of ours has a space."""
    return f"key {flag}"


def _spelled(word: str) -> str:
    """Return a word with the hyphens of a flag: `--train_data_dir=x` is `--train-data-dir=x`."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value


def _with_negatives(words: Sequence[str]) -> list[str]:
    """Return words with values such as `-8GB` joined to their flags: argparse takes them for flags.

    >>> _with_negatives(["--mem", "-8GB", "x"])
    ['--mem=-8GB', 'x']
    """
    found: list[str] = []
    for word in words:
        before = found[-1] if found else ""
        is_value = word[:1] == "-" and word[1:2].isdecimal()
        if is_value and before.startswith("--") and len(before) > 2 and "=" not in before:
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _stray(words: Sequence[str], alone: Collection[str]) -> dict[str, str]:
    """Return the words that argparse would misread, each with what is wrong.

    Args:
      alone: flags that take no value.
    """
    found: dict[str, str] = {}
    for word in words:
        if word == "--":
            break
        flag, equals, value = word.partition("=")
        if equals and flag in alone:
            found[word] = f"{flag} stands alone; leave {equals}{value} out."
        elif word.startswith(_DASHES) and " " not in word:
            found[word] = f"{word} begins with a dash; a flag begins with two hyphens."
    return found


def _missing(flag: str) -> str:
    if flag == "--mem":
        return f"--mem needs a size after it, such as 8GB. The least that works is {LEAST}."
    return f"{flag} needs a value after it."


def _unknown(word: str, known: Sequence[str]) -> str:
    flag = word.partition("=")[0]
    if not flag.startswith("-"):
        return f"{word!r} is one word too many; name one file or folder."
    if flag in PLAN_ONLY:
        return f"{flag} is for `edge-train plan` only; leave it out."
    near = nearest(flag, known).partition("? There are ")[0]
    return f"unknown flag {flag}; " + (
        f"{near}?" if near.startswith("did") else "see `edge-train run --help`."
    )
