"""Where the answers stand in the text of a chat: what a model is to write, and learns from.

A template says where an answer begins and ends by what it writes for shorter chats: the text before
a turn, with the beginning of an answer behind it, and the text with the turn. Templates that write
an earlier turn in another way once a later one follows (Qwen3 leaves its thoughts out) are asked
once more, with the turn replaced by a letter: what is around the letter is not of the turn.
"""

from collections.abc import Callable, Sequence
from typing import Any

from edge_train.errors import TemplateError
from edge_train.formats.chat_template import ChatTemplate, Span
from edge_train.tasks.language_model.chats import ASSISTANT, Chat

Write = Callable[..., str]
_FIRST_LETTER = 0xE000  # of those that Unicode leaves to everyone


def text_and_answers(
    template: ChatTemplate, chat: Chat, controls: Sequence[str], most: int | None = None
) -> tuple[str, list[Span]]:
    """Return the text of a chat and the spans of its answers, to the token that ends each.

    Args:
      controls: tokens of control, as texts. White space behind one that ends a turn is no answer:
        whoever talks with the model stops at the token.
      most: letters of the text that are kept of it; answers behind the first that begins after
        them are not looked for, which takes a chat of many turns many times as long.

    Raises:
      TemplateError: the template refuses the chat, or an answer is not found in what it wrote.
    """
    if template.marks_answers():
        text, spans = template.parts(chat.messages, chat.tools)
        turns = [n for n, one in enumerate(chat.messages) if one["role"] == ASSISTANT]
        if len(spans) == len(turns):
            wanted = set(chat.answers)
            spans = [span for n, span in zip(turns, spans, strict=True) if n in wanted]
        return text, spans

    def write(messages: Sequence[Any], open_: bool = False) -> str:
        return template.text(messages, chat.tools, open_=open_)

    text = write(chat.messages)
    spans = []
    for place in chat.answers:
        start, end = _by_shorter(write, chat.messages, place, text)
        if start is None or end is None:
            found = _by_replacing(write, chat.messages, place, text, controls)
            start = found[0] if start is None else start
            end = found[1] if end is None else end
        said = text[start:end].rstrip()
        if said.endswith(tuple(controls)):
            end = start + len(said)
        if start < end:
            spans.append((start, end))
        if most is not None and start > most:
            break
    return text, spans


def _by_shorter(
    write: Write, messages: Sequence[Any], place: int, text: str
) -> tuple[int | None, int | None]:
    """Return where a turn begins and ends, by the texts of the chat up to it and with it."""
    ends: list[int | None] = []
    for some, open_ in ((messages[:place], True), (messages[: place + 1], False)):
        try:
            short = text if len(some) == len(messages) else write(some, open_)
        except TemplateError:  # it takes no chat that ends here
            ends.append(None)
        else:
            ends.append(len(short) if text.startswith(short) else None)
    start, end = ends
    return (start, end) if start is None or end is None or start < end else (None, None)


def _by_replacing(
    write: Write, messages: Sequence[Any], place: int, text: str, controls: Sequence[str]
) -> Span:
    """Return where a turn begins and ends, by the text of the chat with a letter in its place.

    Raises:
      TemplateError: the letter is not in what it wrote, or it takes no such chat.
    """
    letter = _letter_outside(text)
    other = {"role": ASSISTANT, "content": letter}
    front, found, back = write((*messages[:place], other, *messages[place + 1 :])).partition(letter)
    if not found:
        raise TemplateError(f"does not write the answer of message {place + 1}")
    start = _shared(front, text)
    end = len(text) - _shared(back[::-1], text[start:][::-1])
    try:
        tail = write((*messages[:place], other)).partition(letter)[2]
    except TemplateError:
        return start, end
    behind = tail[: _shared(tail, text[end:])]
    if behind != tail:  # two tokens may begin alike: as far as the last whole one
        ends = (behind.rfind(token) + len(token) for token in controls if token in behind)
        behind = behind[: max(ends, default=0)]
    return start, end + len(behind)


def _letter_outside(text: str) -> str:
    """Return a letter that a text does not have."""
    used = set(text)
    return next(one for one in map(chr, range(_FIRST_LETTER, 0x110000)) if one not in used)


def _shared(one: str, other: str) -> int:
    """Return how many letters two texts begin with alike."""
    least = min(len(one), len(other))
    return next((at for at in range(least) if one[at] != other[at]), least)
