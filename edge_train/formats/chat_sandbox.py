"""Where chat templates run: Jinja's sandbox, with its rounds counted and its answers marked."""

import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import Template, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from edge_train.errors import TemplateError
from edge_train.process.room import room_for

# Rounds of all loops and calls of macros for one chat; a chat of 1,000 turns takes some thousands.
_MOST_ROUNDS = 1 << 20
_MOST_SECONDS = 60.0  # of the processor, for one chat; an honest one takes a thousandth of one
_MOST_LETTERS = 1 << 24  # of one text, tens of books
_MOST_ROOM = 1 << 28  # bytes that one chat may take on its way
_MOST_COPIES = 1 << 20  # letters or numbers that one product may make
# Around what a template marks as an answer. Unicode promises that no text has these.
_BEGIN, _END = "\ufdd0", "\ufdd1"
_MARKS = re.compile(f"[{_BEGIN}{_END}]")
# Methods that make long texts of short ones.
_FILLING = frozenset(("center", "expandtabs", "ljust", "rjust", "zfill"))
# What code of a stranger runs into; MemoryError where it makes more than fits under the cap.
_FAILURES = (
    *(jinja2.TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError),
    *(MemoryError, NameError, RuntimeError, TypeError, ValueError),  # a number can be named inf
)
_SHOWN = 200  # letters of a reason


class _SaidNo(jinja2.TemplateError):
    """The template itself refuses a chat."""


class _TooLong(jinja2.TemplateError):
    """It does not end."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox; the code of a template calls `count_round` in every loop and macro."""

    intercepted_binops = frozenset(("*", "**"))
    marks_answers = False
    rounds = 0
    began = 0.0

    def count_round(self) -> None:
        self.rounds += 1
        if self.rounds > _MOST_ROUNDS:
            raise _TooLong(f"goes round its loops more than {_MOST_ROUNDS} times")
        if time.process_time() - self.began > _MOST_SECONDS:
            raise _TooLong(f"takes more than {_MOST_SECONDS:.0f} seconds of the processor")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(left) < _MOST_COPIES and abs(right) < 64):
            raise _TooLong("raises a number to a power that is too large")
        if operator == "*" and not numbers:
            one, count = (left, right) if hasattr(left, "__len__") else (right, left)
            if isinstance(count, int) and len(one) * count > _MOST_COPIES:
                raise _TooLong("makes a text that is too long")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _FILLING and super().is_safe_attribute(obj, attr, value)


class _Answers(Extension):
    """`{% generation %}` ... `{% endgeneration %}`: what stands between is an answer."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own name and kind

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        self.environment.marks_answers = True  # type: ignore[attr-defined]
        around = [nodes.Output([nodes.TemplateData(mark)]) for mark in (_BEGIN, _END)]
        # a scope of its own, as transformers' block has it
        return [nodes.Scope([around[0], *body, around[1]]).set_lineno(line)]


class _Names(Namespace):
    """A namespace of templates, without names that begin with an underscore."""

    def __init__(*arguments: Any, **named: Any) -> None:
        self, given = arguments[0], dict(*arguments[1:], **named)
        for name in given:
            _check(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check(name)
        super().__setitem__(name, value)


class _Dictionaries:
    """`dict` of templates: it makes one, and is no class to climb up from."""

    def __call__(self, *arguments: Any, **named: Any) -> dict[Any, Any]:
        return dict(*arguments, **named)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


def _check(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"sets {name!r}, which begins with an underscore")


def compiled(source: str, day: datetime) -> tuple[Template, bool]:
    """Return a template, and whether it marks its answers.

    Args:
      day: what it takes for now.

    Raises:
      TemplateError: it is none.
    """
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Answers, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.filters.pop("center")  # fills texts up, as the methods do
    environment.globals.pop("lipsum")
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = day.strftime
    environment.globals["dict"] = _Dictionaries()
    environment.globals["namespace"] = _Names
    try:
        with room_for(_MOST_ROOM):
            tree: Any = environment.parse(source)
            for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
                node.body.insert(0, _counted(node.lineno))
            tree.set_environment(environment)
            return environment.from_string(tree), environment.marks_answers
    except (*_FAILURES, SyntaxError) as error:  # Python's parser gives up on deep nesting
        raise TemplateError(f"cannot be read ({_why(error)})") from error


def written(template: Template, values: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """Return what a template writes, and the spans that it marks as answers.

    Raises:
      TemplateError: it refuses the values, fails, or does not end.
    """
    environment: Any = template.environment
    environment.rounds, environment.began = 0, time.process_time()
    parts, letters = [], 0
    try:
        with room_for(_MOST_ROOM):
            for part in template.generate(**values):
                parts.append(part)
                letters += len(part)
                if letters > _MOST_LETTERS:
                    raise _TooLong(f"writes more than {_MOST_LETTERS} letters")
    except _SaidNo as error:
        raise TemplateError(f"says {_why(error)!r}") from error
    except _TooLong as error:
        raise TemplateError(_why(error)) from error
    except _FAILURES as error:
        raise TemplateError(f"fails ({_why(error)})") from error
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise TemplateError(f"writes {half!r}, half a letter that no tokenizer reads") from error
    return _unmarked(text) if environment.marks_answers else (text, [])


def _unmarked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return a text without the marks of answers, and where these were."""
    starts = [found.start() - number for number, found in enumerate(_MARKS.finditer(text))]
    marks = "".join(_MARKS.findall(text))
    if marks != (_BEGIN + _END) * (len(marks) // 2):
        raise TemplateError("marks answers within answers, or not to their end")
    spans = list(zip(starts[::2], starts[1::2], strict=True))
    return _MARKS.sub("", text), [span for span in spans if span[0] < span[1]]


def _counted(line: int) -> nodes.Node:
    """Return the statement that counts a round."""
    counter = nodes.EnvironmentAttribute("count_round")
    call = nodes.Call(counter, [], [], None, None)
    return nodes.ExprStmt(call).set_lineno(line)


def _refuse(message: Any) -> NoReturn:
    raise _SaidNo(str(message))


def _why(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    if isinstance(error, MemoryError):
        return "it needs more memory than it may have"
    return " ".join(str(error).split())[:_SHOWN] or type(error).__name__


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON with letters as they are; Jinja's own filter is for web pages."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
