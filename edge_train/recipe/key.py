"""One key of a recipe: its type, range, flags and help, and what may be its value."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from edge_train.errors import InputError
from edge_train.paths import check_path
from edge_train.registry import nearest
from edge_train.units import parse_bytes, parse_seconds, shown

DETAILS = "key"  # of a field's metadata


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Attributes:
      name: in TOML and Python.
      kind: its type: int, float, str, bool, or a tuple of one of these.
      help: a line for people.
      default: None where the model, method or preset decides.
      flags: our spelling first, then the spellings of other programs.
      group: the heading that it stands under in help, one of `GROUPS`.
      common: whether the short help shows it.
      low, high: range of a number, and of every number of a tuple.
      choices: the words that it may be; empty where a registry knows them, or nothing does.
      is_bytes: a size, which may be spelled `8GB`.
      is_duration: a time, which may be spelled `30m`.
      check: refuses a text that is none of what the key may say.
      is_path: a file or folder; made absolute before a run folder keeps it.
      may_be_path: a file or folder, or a name; kept as it is.
      beside_recipe: a path in a recipe's file is relative to that file.
      is_code: names code that a run imports; a run folder is not believed about it, so whoever
        resumes names it again.
      also: other names in a file.
      translates: values as other programs spell them.
    """

    name: str
    kind: Any
    help: str
    default: Any = None
    flags: tuple[str, ...] = ()
    group: str = "method"
    common: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    is_bytes: bool = False
    is_duration: bool = False
    check: Callable[[str], object] | None = None
    is_path: bool = False
    may_be_path: bool = False
    beside_recipe: bool = False
    is_code: bool = False
    also: tuple[str, ...] = ()
    translates: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def spellings(self) -> tuple[str, ...]:
        """The flags, made from the name where none are given: `--no-flips` for what is on."""
        if self.flags:
            return self.flags
        words = self.name.replace("_", "-")
        return (f"--no-{words}" if self.default is True else f"--{words}",)

    @property
    def is_switch(self) -> bool:
        """Whether its flag stands alone."""
        return self.kind is bool

    @property
    def is_repeated(self) -> bool:
        """Whether its flag may stand more than once: a list of any length."""
        return get_origin(self.kind) is tuple and get_args(self.kind)[1:] == (...,)

    def from_text(self, text: str) -> Any:
        """Return what a word of a command line stands for; `checked` says whether it may be.

        >>> Key("window", tuple[int, int], "steps").from_text("300,1000")
        (300, 1000)
        """
        text = self.translates.get(text, text)
        if get_origin(self.kind) is tuple:
            item = get_args(self.kind)[0]
            return tuple(_number(part, item) for part in text.split(","))
        return text if self.is_bytes or self.is_duration else _number(text, self.kind)

    def checked(self, value: Any, source: str) -> Any:
        """Return a value of this key's type and range.

        Raises:
          InputError: it is of another type or out of range; `source` is put before the sentence.
        """
        lead = f"{source}: " if source else ""
        if value is None and self.default is None:
            return None
        if self.is_bytes and type(value) in (int, str):
            return parse_bytes(value if isinstance(value, str) else shown(value))
        if self.is_duration and isinstance(value, str):
            value = parse_seconds(value)
        if isinstance(value, list):
            value = tuple(value)
        if not self._fits(value):
            raise InputError(f"{lead}{self.name} = {shown(value)} is not {self._kind_in_words}.")
        for part in value if isinstance(value, tuple) else (value,):
            self._check_range(part, lead)
            self._check_text(part, lead)
        if self.kind is float:
            value = float(value)  # a whole number may stand for it
        if self.check is not None:
            self.check(value)
        if self.choices and value not in self.choices:
            raise InputError(
                f"{lead}{self.name} {shown(value)} is not known; "
                f"{nearest(str(value), self.choices)}."
            )
        return value

    def _fits(self, value: Any) -> bool:
        if get_origin(self.kind) is not tuple:
            return type(value) is self.kind or (self.kind is float and type(value) is int)
        item, *rest = get_args(self.kind)
        one = type(value) is tuple and all(type(part) is item for part in value)
        return one and (rest == [...] or len(value) == 1 + len(rest))

    @property
    def _kind_in_words(self) -> str:
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        if get_origin(self.kind) is not tuple:
            return names[self.kind]
        item, *rest = get_args(self.kind)
        count = "" if rest == [...] else f"{1 + len(rest)} "
        plural = {int: "whole numbers", float: "numbers", str: "texts"}[item]
        return f"a list of {count}{plural}"

    def _check_range(self, number: Any, lead: str) -> None:
        low, high = self.low, self.high
        if low is not None and high is not None and not low <= number <= high:
            raise InputError(
                f"{lead}{self.name} is {shown(number)}, must be from {low:g} to {high:g}."
            )

    def _check_text(self, text: Any, lead: str) -> None:
        """Refuse what no file name, file or prompt can hold: a recipe is written to one."""
        if not isinstance(text, str):
            return
        if not text and self.default is None:
            raise InputError(f"{lead}{self.name} is empty; give it a value, or leave it out.")
        if text and (self.is_path or self.may_be_path):
            check_path(text, f"{lead}{self.name}")
        if "\0" in text or not is_unicode(text):
            raise InputError(f"{lead}{self.name} = {shown(text)} is not text that can be kept.")
        if text.startswith("~") and self.kind is str:
            try:
                Path(text).expanduser()
            except RuntimeError as error:
                raise InputError(
                    f"{lead}{self.name} = {shown(text)}: there is no such user here."
                ) from error


def _number(text: str, kind: Any) -> Any:
    """Return a number where a number is wanted and one is there, else the text."""
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        return text


def key(default: Any = None, *, help: str, **details: Any) -> Any:  # noqa: A002 - argparse's word
    """Return the field of a recipe class; `details` are attributes of its `Key`."""
    return dataclasses.field(default=default, metadata={DETAILS: {"help": help, **details}})


def is_unicode(text: str) -> bool:
    """Return whether it is text, not the bytes of another coding that a command line handed on."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
