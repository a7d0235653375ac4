"""An Ollama `Modelfile`: which model, which adapter, how messages become text, where to stop.

Ollama writes chats with a template of Go's, models bring one of Jinja2. What is said here is read
off the model's own: it writes probing chats, and if each is the texts of its messages in turn, a Go
template of these texts writes the same. If not, nothing is said of it, and Ollama takes what it
knows of the model. One that brings no template is given the prompt alone.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from edge_train.errors import InputError, TemplateError
from edge_train.formats.chat_template import ChatTemplate

_WORDS = ("violin", "jackdaw", "sphinx", "waltz")  # that no template holds
_CHAT = [
    {"role": role, "content": word}
    for role, word in zip(("user", "assistant") * 2, _WORDS, strict=True)
]
_SYSTEM = {"role": "system", "content": "quartz"}
_QUOTES, _NEW_LINE = '"""', "\n"
NO_TEMPLATE = (
    "the Modelfile has no TEMPLATE: the model's own cannot be said in Ollama's words, which takes "
    "what it knows of the model; compare with `edge-train chat`."
)


@dataclass(frozen=True)
class Turns:
    """How a template writes chats.

    Attributes:
      around: role -> what stands before and behind a message of it.
      opening: what an answer follows.
      system: the message that stands first where a chat has none of the system; None: nothing does.
    """

    around: Mapping[str, tuple[str, str]]
    opening: str
    system: str | None


def modelfile(
    model: str,
    adapter: str | None,
    template: ChatTemplate | None,
    *,
    begin: str,
    stops: Sequence[str],
    system: str | None = None,
    new_line: bool = False,
) -> tuple[str, str]:
    """Return the text of a Modelfile, and a line about what it does not say; empty if nothing.

    Args:
      model, adapter: paths, as Ollama finds them.
      template: of the model.
      begin: what the tokenizer itself puts before a text, which Ollama has it do, too.
      stops: texts that end an answer.
      system: the message that stands first in every chat; None: the template's own.
      new_line: of a model without a template: what stands behind a prompt, as in training.

    Raises:
      InputError: a path is no line.
    """
    for path in (model, adapter or ""):
        if "\n" in path or "\r" in path:
            raise InputError(
                f"{path!r} holds the end of a line, which no Modelfile can; rename it."
            )
    lines = [f"FROM {model}", *([f"ADAPTER {adapter}"] if adapter else [])]
    turns = None if template is None else turns_of(template, begin)
    if template is None:
        lines.append(f"TEMPLATE {_QUOTES}{{{{ .Prompt }}}}{_NEW_LINE if new_line else ''}{_QUOTES}")
    if turns is not None:
        lines.append(f"TEMPLATE {_QUOTES}{_in_go(turns)}{_QUOTES}")
    first = turns.system if system is None and turns is not None else system
    if first is not None:
        lines.append(f"SYSTEM {_QUOTES}{first}{_QUOTES}")
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if '"' not in stop]
    unsaid = template is not None and turns is None
    return "\n".join(lines) + "\n", NO_TEMPLATE if unsaid else ""


def turns_of(template: ChatTemplate, begin: str = "") -> Turns | None:
    """Return how a template writes chats; None where they are no messages in turn.

    Args:
      begin: what is taken off the beginning of a chat.

    >>> from datetime import datetime
    >>> source = "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}"
    >>> source += "{% if add_generation_prompt %}[assistant]{% endif %}"
    >>> found = turns_of(ChatTemplate({"default": source}, {}, datetime(2026, 1, 1)))
    >>> found.around["user"], found.opening, found.system
    (('[user]', ';'), '[assistant]', None)
    """
    try:
        found = _read_off(template, begin)
        if found is None or not _can_be_said(_literal(found)):
            return None
        chats = [_CHAT[:3], [*_CHAT, *_CHAT[:1]]]
        if "system" in found.around:
            chats += [[_SYSTEM, *chat] for chat in chats]
        same = all(
            _text(template, begin, chat, open_=True) == _written(found, chat) for chat in chats
        )
    except TemplateError:
        return None
    return found if same else None


def _read_off(template: ChatTemplate, begin: str) -> Turns | None:
    """Return what stands around messages, if each is written once."""
    asked = _text(template, begin, _CHAT[:1])
    answered = _text(template, begin, _CHAT[:2])
    user = _text(template, begin, _CHAT[:3]).removeprefix(answered).replace(_WORDS[2], _WORDS[0])
    opening = _text(template, begin, _CHAT[:1], open_=True).removeprefix(asked)
    pieces = {"user": (user, _WORDS[0]), "assistant": (answered.removeprefix(asked), _WORDS[1])}
    before = asked.removesuffix(user)
    with suppress(TemplateError):  # a model may know no system
        system = _text(template, begin, [_SYSTEM, *_CHAT[:1]]).removesuffix(user)
        pieces["system"] = (system, _SYSTEM["content"])
    around = {}
    for role, (piece, word) in pieces.items():
        if piece.count(word) == 1:
            first, _, behind = piece.partition(word)
            around[role] = (first, behind)
    if {"user", "assistant"} - around.keys() or not opening:
        return None
    first, behind = around.get("system", ("", ""))
    default = before[len(first) : len(before) - len(behind)]
    if before and first + default + behind != before:
        return None
    return Turns(around, opening, default if before else None)


def _can_be_said(text: str) -> bool:
    """Return whether a Modelfile keeps a text: Ollama drops what cannot be printed."""
    plain = all(letter.isprintable() or letter in "\n\t" for letter in text)
    return plain and "{{" not in text and _QUOTES not in text


def _literal(turns: Turns) -> str:
    parts = [part for both in turns.around.values() for part in both]
    return "".join((*parts, turns.opening, turns.system or ""))


def _text(
    template: ChatTemplate, begin: str, chat: Sequence[Mapping[str, str]], *, open_: bool = False
) -> str:
    return template.text(chat, open_=open_).removeprefix(begin)


def _written(turns: Turns, chat: Sequence[Mapping[str, str]]) -> str:
    """Return what the Go template writes."""
    first = [] if turns.system is None or chat[0]["role"] == "system" else [turns.system]
    messages = [*({"role": "system", "content": one} for one in first), *chat]
    text = ""
    for message in messages:
        before, behind = turns.around[message["role"]]
        text += before + message["content"] + behind
    return text + turns.opening


def _in_go(turns: Turns) -> str:
    found = "{{- range .Messages }}"
    for number, (role, (before, behind)) in enumerate(sorted(turns.around.items())):
        found += "{{ else if" if number else "{{ if"
        found += f' eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{behind}'
    return found + "{{ end }}{{ end }}" + turns.opening
