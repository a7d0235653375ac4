"""Rows that are chats, or prompts with completions: known by their columns, checked, made alike."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_train.errors import InputError
from edge_train.formats.json_text import Twice, read_text
from edge_train.formats.tables.names import CHATS, TEXT_FLAG, text_of
from edge_train.formats.tables.table import Table
from edge_train.units import shown

PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
)
INPUTS, SYSTEMS = ("input", "context"), ("system", "system_prompt")
_TOOLS, _FUNCTIONS = ("tools",), ("functions",)
_PREFERENCES = ("chosen", "rejected")
# What LLaVA, LLaMA-Factory and their like put beside a chat whose text says <image>.
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_JUDGED = ("label",)  # beside a prompt and a completion, as TRL's KTO has it: whether it is good
# Names that make a first row of a csv a header.
NAMES = frozenset(
    (*CHATS, *(name for pair in PAIRS for name in pair), *INPUTS, *SYSTEMS, *_TOOLS, *_FUNCTIONS)
)
ASSISTANT = "assistant"
ROLES = ("system", "developer", "user", ASSISTANT, "tool")
# What OpenAI called a tool's result, and the call of one, before it had `tools`. To ShareGPT the
# latter is a turn of the assistant that is a call, written as JSON.
_FUNCTION, _CALLS = "function", "function_call"
# As ShareGPT, LLaMA-Factory and their like call them in `from`.
_SPEAKERS: Mapping[str, str] = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot", ASSISTANT, _CALLS), ASSISTANT),
    **dict.fromkeys(("observation", "tool", "function", "function_response"), "tool"),
}
_TURN = ("role", "content")
_ROLE_NAMES = (*ROLES, *_SPEAKERS)


class WrongChat(ValueError):
    """A row that is no chat: the message goes on after its number."""


@dataclass(frozen=True)
class Chat:
    """One conversation.

    Attributes:
      messages: as a chat template takes them.
      tools: JSON schemas of functions, if any.
      uncounted: places of turns that nothing is learned from: of `weight` 0, or of a prompt.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[Any, ...] = ()
    uncounted: frozenset[int] = frozenset()

    @property
    def answers(self) -> list[int]:
        """The places of the turns that are learned from."""
        turns = (n for n, one in enumerate(self.messages) if one["role"] == ASSISTANT)
        return [place for place in turns if place not in self.uncounted]


@dataclass(frozen=True)
class ChatColumns:
    """Where a table holds its chats.

    Attributes:
      what: for people: chats, or the two columns.
      messages: place of the list of messages; None: a prompt and a completion.
      pair: places of these two.
      more: places of what goes behind the prompt, of the system's message, of the tools, and of
        the functions that are them in data from before there were tools.
      media: names and places of pictures and sound that a row may have.
      judged: place of what is false where the completion is a bad one.
    """

    what: str
    messages: int | None
    pair: tuple[int, int] = (0, 0)
    more: tuple[int | None, ...] = (None,) * 4
    media: tuple[tuple[str, int], ...] = ()
    judged: int | None = None

    def chat(self, row: Sequence[Any]) -> Chat:
        """Return the chat of a row.

        Raises:
          WrongChat: it is none.
        """
        if found := next((name for name, place in self.media if _parsed(row[place])), None):
            raise WrongChat(f"has {shown(found)} beside its text, and texts alone are learned")
        if self.judged is not None and row[self.judged] is False:
            raise WrongChat("has an answer that is marked as a bad one ('label' is false)")
        extra, system, tools, functions = (None if at is None else row[at] for at in self.more)
        if self.messages is not None:
            messages, uncounted = _messages(row[self.messages])
        else:
            prompt, completion = (row[place] for place in self.pair)
            messages, uncounted = _pair(prompt, completion, extra)
        if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": system}, *messages)
            uncounted = frozenset(place + 1 for place in uncounted)
        known = _tools(tools) or tuple({"type": _FUNCTION, _FUNCTION: f} for f in _tools(functions))
        return Chat(messages, known, uncounted)


def chat_columns(table: Table) -> ChatColumns | None:
    """Return where a table holds chats, None where its columns are of another kind.

    Raises:
      InputError: it holds pairs of a better and a worse answer, which are not trained on, or turns.
    """

    def first(names: Sequence[str]) -> int | None:
        return next(iter(table.among(names)), None)

    more = (first(INPUTS), first(SYSTEMS), first(_TOOLS), first(_FUNCTIONS))
    media = tuple((table.columns[place], place) for place in table.among(_MEDIA))
    if (place := first(CHATS)) is not None:
        return ChatColumns("chats", place, more=(None, *more[1:]), media=media)
    for names in PAIRS:
        if len(found := table.among(names)) == 2:
            extra = more[0] if names[0] == "instruction" else None
            what = f"{names[0]}s with {names[1]}s"
            places = (found[0], found[1])
            return ChatColumns(what, None, places, (extra, *more[1:]), media, first(_JUDGED))
    if len(table.among(_PREFERENCES)) == 2:
        raise InputError(
            f"{table.path}: its rows are pairs of a better and a worse answer (columns 'chosen' "
            "and 'rejected'), which are not trained on; write each better one under 'messages', or "
            f"name a column of texts with {TEXT_FLAG} NAME."
        )
    if len(found := table.among(_TURN)) == 2 and table.sample[0][found[0]] in _ROLE_NAMES:
        raise InputError(
            f"{table.path}: its rows are turns of a chat (columns 'role' and 'content'), and a row "
            "should be a chat; write each chat's turns as a list under 'messages', or name a "
            f"column of texts with {TEXT_FLAG} NAME."
        )
    return None


def looks_like(names: Collection[str]) -> str | None:
    """Return what a table with columns of these names, in small letters, holds; None: no chats.

    Better and worse answers count, too: `chat_columns` says why they are not trained on.
    """
    if not set(CHATS).isdisjoint(names):
        return "chats"
    if set(_PREFERENCES) <= set(names):
        return "pairs of a better and a worse answer"
    pair = next((one for one in PAIRS if set(one) <= set(names)), None)
    return f"{pair[0]}s with {pair[1]}s" if pair else None


def _messages(value: Any) -> tuple[tuple[dict[str, Any], ...], frozenset[int]]:
    value = _parsed(value)
    if not isinstance(value, list):
        raise WrongChat(f"has no list of messages{_why_no_json(value)}")
    if not value:
        raise WrongChat("has no messages")
    messages = tuple(_message(number, one) for number, one in enumerate(value, 1))
    weights = [one.get("weight") for one in value]
    return messages, frozenset(n for n, weight in enumerate(weights) if weight == 0)


def _message(number: int, value: Any) -> dict[str, Any]:
    if isinstance(value, Twice):
        raise WrongChat(f"has a message {number} with two values for {shown(value.name)}")
    if not isinstance(value, dict):
        raise WrongChat(f"has a message {number} that is no object")
    if value.get("role") is None and "from" in value:
        message = _spoken(number, value["from"], value.get("value"))
    else:
        # tables have every name in every row; what is not there is not there
        message = {n: v for n, v in value.items() if v is not None or n == "content"}
    if message.get("role") == _FUNCTION:
        message["role"] = "tool"
    if _CALLS in message:
        message["tool_calls"] = [message.pop(_CALLS)]
    if (role := message.get("role")) not in ROLES:
        raise _unknown(number, "role", role, ROLES)
    message["content"] = content = _content(number, message.get("content"))
    calls = message.get("tool_calls")
    if calls is not None:
        message["tool_calls"] = _calls(number, calls)
    if role == ASSISTANT and not (content and content.strip()) and not calls:
        raise WrongChat(f"has an answer without a text (message {number})")
    if content is None and not calls:
        raise WrongChat(f"has a message {number} without a text")
    return message


def _spoken(number: int, speaker: Any, value: Any) -> dict[str, Any]:
    """Return a message with `from` and `value` as one with `role` and `content`."""
    name = speaker.strip().lower() if isinstance(speaker, str) else ""
    if name not in _SPEAKERS:
        raise _unknown(number, "from", speaker, tuple(_SPEAKERS))
    if name != _CALLS:
        return {"role": _SPEAKERS[name], "content": value}
    calls = _parsed(value)
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list) or not calls:
        raise WrongChat(
            f"has a message {number} from {_CALLS!r} that is no JSON of a call, "
            f'{{"name": ..., "arguments": ...}}{_why_no_json(value)}'
        )
    return {"role": ASSISTANT, "content": "", "tool_calls": calls}


def _unknown(number: int, key: str, found: Any, known: Sequence[str]) -> WrongChat:
    return WrongChat(
        f"has a message {number} of {key} {shown(found)}; rename it to one that {key!r} takes: "
        f"{', '.join(known)}"
    )


def _content(number: int, value: Any) -> str | None:
    """Return the text of a message, whose parts may be objects of a type."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        texts = [part.get("text") for part in value]
        others = sorted(
            {str(p.get("type")) for p, t in zip(value, texts, strict=True) if t is None}
        )
        if others:
            raise WrongChat(f"has a message {number} with {others[0]!r}, which is no text")
        if all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    raise WrongChat(f"has a message {number} whose content is no text")


def _calls(number: int, value: Any) -> list[dict[str, Any]]:
    """Return the calls of tools with arguments as objects, which templates write as JSON."""
    if not isinstance(value, list) or not all(isinstance(call, dict) for call in value):
        raise WrongChat(f"has a message {number} whose tool_calls are no list of objects")
    found = []
    for call in value:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise WrongChat(f"has a message {number} with a call of a tool without a name")
        function = {**function, "arguments": _parsed(function.get("arguments", {}))}
        found.append({**call, "function": function} if "function" in call else function)
    return found


def _pair(
    prompt: Any, completion: Any, extra: Any
) -> tuple[tuple[dict[str, Any], ...], frozenset[int]]:
    """Return a prompt and its completion as messages, and the places that do not count.

    Either may be a list of messages. None of the prompt's counts, whoever says it.
    """
    if isinstance(prompt, list) or isinstance(completion, list):
        asked_as, answered_as = (
            value if isinstance(value, list) else [{"role": role, "content": value}]
            for value, role in ((prompt, "user"), (completion, ASSISTANT))
        )
        messages, uncounted = _messages([*asked_as, *answered_as])
        return messages, uncounted | frozenset(range(len(asked_as)))
    asked, answered = text_of(prompt), text_of(completion)
    if asked is None:
        raise WrongChat("has no prompt")
    if answered is None:
        raise WrongChat("has no completion")
    if isinstance(extra, str) and extra.strip():
        asked = f"{asked}\n\n{extra}"
    question, answer = {"role": "user", "content": asked}, {"role": ASSISTANT, "content": answered}
    return (question, answer), frozenset()


def _tools(value: Any) -> tuple[Any, ...]:
    value = _parsed(value)
    if value is None or value == "":
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise WrongChat(f"has tools that are no list of objects{_why_no_json(value)}")
    return tuple(value)


def _parsed(value: Any) -> Any:
    """Return what a text of JSON stands for, as some tables keep lists and objects."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return read_text(value)
        except ValueError:
            return value
    return value


def _why_no_json(value: Any) -> str:
    """Return in brackets why a text that looks like JSON is none; empty for any other value."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            read_text(value)
        except ValueError as error:
            return f" ({error})"
    return ""
