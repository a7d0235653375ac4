"""Chats, prompts with completions, and notes as texts whose answers are marked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_train.errors import InputError, TemplateError
from edge_train.formats.chat_template import ChatTemplate, Span
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.tables.wrong import Wrong
from edge_train.tasks.language_model.answers import text_and_answers
from edge_train.tasks.language_model.chats import ASSISTANT, Chat, WrongChat
from edge_train.tasks.language_model.documents import Texts
from edge_train.tasks.language_model.labels import LABELS
from edge_train.tasks.language_model.prompting import Prompt

COMPLETIONS = "completions"  # what `loss_on` may be, beside `all`


@dataclass(frozen=True)
class Passage:
    """A whole document, or a piece of a long note.

    Attributes:
      answers: spans of the text that are learned; None: all of it is.
      begins, ends: nothing in the text says that a document begins with it, or ends: the model's
        own mark goes there.
      goes_on: what is longer than a sequence goes on in the next one; else it loses its end.
      source: what its source is called.
      new_line: whether one was put between a prompt and its completion; None: it is no such pair,
        or the prompt ends in white space.
    """

    text: str
    answers: list[Span] | None
    begins: bool = False
    ends: bool = False
    goes_on: bool = False
    source: str = ""
    new_line: bool | None = None


@dataclass(frozen=True)
class Reader:
    """Makes passages of chats.

    Args:
      template: of the model; None where it has none, which does for a prompt and its completion.
      loss_on: `completions` or `all`.
      controls: tokens of control, as texts.
      letters: of a chat's text that are kept at most; None: nobody knows.
      prompt: that every chat gets; None: none.
      marks_pieces: every piece of a note is a document, as earlier versions read it.
    """

    template: ChatTemplate | None
    loss_on: str
    controls: Sequence[str]
    letters: int | None = None
    prompt: Prompt | None = None
    marks_pieces: bool = False

    @property
    def counts_answers(self) -> bool:
        """Whether answers alone are learned."""
        return self.loss_on in (COMPLETIONS, LABELS)

    @property
    def reads_no_tools(self) -> bool:
        """Whether tools that a chat names are in no text."""
        return self.template is None or not self.template.takes_tools()

    def all_passages(self, texts: Texts, files: tuple[Path, ...]) -> Iterator[Passage]:
        """Yield the passages of files: of chats, and of notes that lie with them, whole.

        Raises:
          InputError: a file cannot be read to its end, or holds mostly wrong rows.
        """
        for path in files:
            if texts.together and texts.chats_of(path) is None:
                yield from self._notes(texts, path)
            else:
                for passage in self.passages(texts.chats((path,))):
                    yield replace(passage, source=texts.source)

    def _notes(self, texts: Texts, path: Path) -> Iterator[Passage]:
        """Yield the notes of a file in pieces; one ends where the next piece begins another."""
        last = None
        for piece, begins, _ in texts.documents((path,)):
            begins = begins or self.marks_pieces
            if last is not None:
                yield replace(last, ends=begins)
            last = Passage(piece, None, begins=begins, goes_on=True, source=texts.source)
        if last is not None:
            yield replace(last, ends=True)

    def passages(self, chats: Iterator[tuple[Wrong, int, Chat]]) -> Iterator[Passage]:
        """Yield the passage of every chat that can be read; the others are counted as wrong."""
        for wrong, number, chat in chats:
            try:
                yield self._passage(chat)
            except WrongChat as error:
                wrong.add(number, str(error))
            except TemplateError as error:
                wrong.add(number, f"is refused: the chat template {error}")

    def _passage(self, chat: Chat) -> Passage:
        if self.counts_answers and not chat.answers:
            raise WrongChat("has no turn of the assistant that counts")
        if self.prompt is not None:
            chat = self.prompt.put(chat)
        if self.template is None:
            return self._plain(chat)
        _check_calls(self.template, chat)
        if not self.counts_answers:
            return Passage(self.template.text(chat.messages, chat.tools), None)
        text, answers = text_and_answers(self.template, chat, self.controls, self.letters)
        if not answers:
            raise WrongChat("has no answer in the text that the chat template makes of it")
        return Passage(text, answers)

    def _plain(self, chat: Chat) -> Passage:
        """Return a prompt with its completion behind it, as a model without a template reads it.

        They stand as they are; where neither has white space between, a new line comes there.
        """
        *before, last = chat.messages
        roles = [message["role"] for message in before]
        if last["role"] != ASSISTANT or ASSISTANT in roles or chat.tools or "tool_calls" in last:
            raise WrongChat("is a chat of several turns, and the model has no chat template")
        prompt, completion = "\n\n".join(str(one["content"]) for one in before), last["content"]
        new_line = None
        if ends_bare(prompt):
            new_line = not completion[:1].isspace()
            prompt += "\n" if new_line else ""
        whole = len(prompt + completion)
        answers = [(len(prompt), whole)] if self.counts_answers else None
        return Passage(prompt + completion, answers, begins=True, ends=True, new_line=new_line)


def ends_bare(prompt: str) -> bool:
    """Return whether a prompt has no white space at its end that would part an answer from it."""
    return bool(prompt) and not prompt[-1].isspace()


def _check_calls(template: ChatTemplate, chat: Chat) -> None:
    """Check that calls of tools are in the text: else the model would learn to say nothing there.

    Raises:
      WrongChat: the template writes the same with and without them.
      TemplateError: as of `text`.
    """
    if not any(one.get("tool_calls") for one in chat.messages):
        return
    with_calls = [{**one, "content": one.get("content") or ""} for one in chat.messages]
    without = [{n: v for n, v in one.items() if n != "tool_calls"} for one in with_calls]
    text = template.text(with_calls, chat.tools)
    try:
        silent = template.text(without, chat.tools)
    except TemplateError:  # an empty answer is nothing to it, so it does read the call
        return
    if text == silent:
        raise WrongChat("calls a tool, which the model's chat template does not write")


def refuse_chats(model: LanguageFolder) -> InputError:
    """Return the error of chats for a model that has no template."""
    put = "put the chat_template.jinja that your app uses into its folder"
    if model.made is not None:
        make = f"--chat-template-file chat_template.jinja {model.path.name} OUT.gguf"
        put = (
            "make a file that has the one your app uses, with the package gguf: "
            f"`gguf-new-metadata {make}`"
        )
    return InputError(
        f"{model.path}: has no chat template, so that nobody knows how it reads chats; use the "
        f"instruct (chat) version of the model, or {put}, or write each chat as one text under "
        "'text'."
    )
