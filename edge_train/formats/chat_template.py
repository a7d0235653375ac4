"""A model's own chat template: chats in, the text that the model was taught to read out.

Templates come with models, so they are code of strangers: they run in Jinja's sandbox, may go
round their loops so often and no more, and see nothing but plain values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Template

from edge_train.errors import ModelError, TemplateError
from edge_train.formats.chat_sandbox import compiled, written
from edge_train.formats.inside import wrong_place
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.weight_files import read_json

Message = Mapping[str, Any]
Span = tuple[int, int]  # of characters

_FILE, _MORE, _SETTINGS = (
    "chat_template.jinja",
    "additional_chat_templates",
    "tokenizer_config.json",
)
_ROLES_FILE = "special_tokens_map.json"
_DEFAULT, _WITH_TOOLS = "default", "tool_use"  # names of templates where a model has several
_MOST_BYTES = 1 << 20  # of a template; the longest published one has a fiftieth of it
# Names of what a model thought before it answered, the usual one first.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class ChatTemplate:
    """Writes chats as a model reads them.

    Args:
      sources: templates by name: `default`, and `tool_use` for chats with tools.
      tokens: what templates call tokens by (`bos_token`, ...) and their texts.
      day: what `strftime_now` takes for now.

    Source: transformers' `apply_chat_template`, whose texts these are, letter by letter. Ours
    counts the rounds of loops and the letters that are written, where theirs goes on for ever.
    """

    sources: Mapping[str, str]
    tokens: Mapping[str, str]
    day: datetime

    def text(
        self,
        messages: Sequence[Message],
        tools: Sequence[Any] | None = None,
        *,
        open_: bool = False,
    ) -> str:
        """Return a chat as a text.

        Args:
          messages: each with a `role`, and mostly with `content`.
          tools: JSON schemas of functions that the model may call.
          open_: end where the model's next answer begins.

        Raises:
          TemplateError: the template refuses it, fails, or does not end.
        """
        return written(self._template(bool(tools)), self._values(messages, tools, open_))[0]

    def parts(
        self, messages: Sequence[Message], tools: Sequence[Any] | None = None
    ) -> tuple[str, list[Span]]:
        """Return a chat as a text, and what of it the template itself marks as answers.

        A template that marks nothing (`{% generation %}` is rare) gives no spans.

        Raises:
          TemplateError: as `text`.
        """
        return written(self._template(bool(tools)), self._values(messages, tools, False))

    def takes_tools(self) -> bool:
        """Return whether a template says anything of tools."""
        return _WITH_TOOLS in self.sources or "tools" in self.sources[_DEFAULT]

    def marks_answers(self) -> bool:
        """Return whether the template says which parts of its text are answers."""
        return self._compiled[1]

    @cached_property
    def _compiled(self) -> tuple[dict[str, Template], bool]:
        made = {name: compiled(source, self.day) for name, source in self.sources.items()}
        return {name: one for name, (one, _) in made.items()}, made[_DEFAULT][1]

    def _template(self, with_tools: bool) -> Template:
        name = _WITH_TOOLS if with_tools and _WITH_TOOLS in self.sources else _DEFAULT
        return self._compiled[0][name]

    def _values(
        self, messages: Sequence[Message], tools: Sequence[Any] | None, open_: bool
    ) -> dict[str, Any]:
        return {
            **self.tokens,
            "messages": [_with_thoughts(message) for message in messages],
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": open_,
        }


def chat_template_of(model: LanguageFolder, day: datetime) -> ChatTemplate | None:
    """Return the template of a model, None where it has none.

    It is looked for in `chat_template.jinja` (and `additional_chat_templates`), then in
    `tokenizer_config.json`; a GGUF file has it in its metadata.

    Raises:
      ModelError: it is no text, too long, or no template.
    """
    settings, sources = _settings(model), {}
    if model.made is None:
        sources = _files(model.path)
    found = settings.get("chat_template")
    if not sources and isinstance(found, str):
        sources = {_DEFAULT: found}
    elif not sources and isinstance(found, list):
        sources = {
            str(one["name"]): one["template"]
            for one in found
            if isinstance(one, dict) and isinstance(one.get("template"), str) and "name" in one
        }
    if _DEFAULT not in sources:
        return None
    known = {name: sources[name] for name in (_DEFAULT, _WITH_TOOLS) if name in sources}
    for source in known.values():
        if len(source) > _MOST_BYTES:
            raise ModelError(
                f"{model.path}: its chat template has {len(source)} letters, and at most "
                f"{_MOST_BYTES} are read; download the model again."
            )
    template = ChatTemplate(known, _tokens(settings), day)
    try:
        template.marks_answers()
    except TemplateError as error:
        raise ModelError(f"{model.path}: its chat template {error}; download it again.") from error
    return template


def _files(folder: Path) -> dict[str, str]:
    """Return the templates that are files of their own.

    Raises:
      ModelError: one is too long, or no text.
    """
    found = {}
    paths = {_DEFAULT: folder / _FILE, _WITH_TOOLS: folder / _MORE / f"{_WITH_TOOLS}.jinja"}
    for name, path in paths.items():
        if not path.is_file() or wrong_place(path, folder):
            continue
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ModelError(f"{path}: longer than {_MOST_BYTES} bytes; download it again.")
        try:
            found[name] = content.decode()
        except UnicodeDecodeError as error:
            raise ModelError(f"{path}: no UTF-8 text; download it again.") from error
    return found if _DEFAULT in found else {}


def _settings(model: LanguageFolder) -> Mapping[str, Any]:
    """Return the settings of a tokenizer, with the older file of its tokens' roles below."""
    if model.made is not None:
        return model.made.settings
    found: dict[str, Any] = {}
    for name in (_ROLES_FILE, _SETTINGS):
        if (model.path / name).is_file():
            found |= read_json(model.path / name)
    return found


def _tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of tokens with a role, `bos_token` and the like."""
    found = {}
    for name, word in settings.items():
        text = word.get("content") if isinstance(word, dict) else word
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _with_thoughts(message: Message) -> dict[str, Any]:
    """Return a message whose thoughts have every name that templates call them by."""
    thoughts = next((message[name] for name in _THOUGHTS if message.get(name) is not None), None)
    if thoughts is None:
        return dict(message)
    return {"thinking": thoughts, **message, "reasoning_content": thoughts}
