"""A prompt that is learned before every chat: where it stands, how it begins and is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.errors import InputError, TemplateError
from edge_train.formats.chat_template import ChatTemplate
from edge_train.formats.prompt_file import read_prompt_file, write_prompt_file
from edge_train.formats.prompt_words import Place, PromptWords, first_prompt, prompt_words
from edge_train.methods.discrete import PROMPT_TOKENS
from edge_train.tasks.language_model.chats import Chat
from edge_train.tasks.language_model.marks import Marks
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

VECTORS_FILE = "prompt.safetensors"
BLOCK = "prompt"
_BETWEEN = "\n\n"
_WORD = "kaleidoscope"  # that no template holds
_SHORT = ({"role": "user", "content": "a"},)


@dataclass(frozen=True)
class Prompt:
    """A prompt of k tokens.

    Attributes:
      ids: its tokens; of a soft one those that its vectors began as, which stand in its place.
      text: of these.
      role: of the message that it stands in: `system`, or `user` where a template knows no system.
      at: tokens before it, in every document.
    """

    ids: tuple[int, ...]
    text: str
    role: str
    at: int

    def put(self, chat: Chat) -> Chat:
        """Return a chat with the prompt in it."""
        messages = with_prompt(chat.messages, self.text, self.role)
        shift = len(messages) - len(chat.messages)
        return replace(
            chat,
            messages=messages,
            uncounted=frozenset(place + shift for place in chat.uncounted),
        )

    def check(self, ids: NDArray[Any], starts: NDArray[np.int64], data: object) -> None:
        """Refuse documents that do not have the prompt's tokens where they should stand.

        Raises:
          InputError: as described.
        """
        ends = starts[1:]
        last = self.at + len(self.ids)
        found = np.zeros(len(ends), bool)
        long = np.flatnonzero(ends - starts[:-1] > last)
        rows = starts[:-1][long, None] + np.arange(self.at, last)
        found[long] = (ids[rows] == np.array(self.ids)).all(axis=1)
        if not found.all():
            number = int(np.flatnonzero(~found)[0])
            raise InputError(
                f"{data}: document {number + 1} does not hold the prompt {self.text!r} as the same "
                f"{len(self.ids)} tokens; use fewer --prompt-tokens, a longer --length, or another "
                "--prompt-start."
            )


def with_prompt(
    messages: Sequence[Mapping[str, Any]], text: str, role: str
) -> tuple[dict[str, Any], ...]:
    """Return messages with a prompt: as the system's, or before what its message says.

    >>> with_prompt([{"role": "user", "content": "hi"}], "Be kind", "system")[0]
    {'role': 'system', 'content': 'Be kind'}
    >>> with_prompt([{"role": "user", "content": "hi"}], "Be kind", "user")
    ({'role': 'user', 'content': 'Be kind\\n\\nhi'},)
    """
    found = [dict(message) for message in messages]
    place = next((n for n, message in enumerate(found) if message["role"] == role), None)
    if place is None:
        return ({"role": role, "content": text}, *found)
    found[place]["content"] = f"{text}{_BETWEEN}{found[place].get('content') or ''}"
    return tuple(found)


def begin(
    recipe: LanguageModelRecipe,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    marks: Marks,
) -> tuple[Prompt, Place]:
    """Return the prompt that a run begins with, and the text around it in a short chat.

    Raises:
      InputError: the template has no place for it, or it is not read as its own tokens.
    """
    role, before, behind = _around(template)
    at = len(tokenizer.encode(before, add_special_tokens=False).ids)
    place = Place(before, behind, at)
    ids, text = first_prompt(
        tokenizer, place, recipe.prompt_start, recipe.prompt_tokens, PROMPT_TOKENS, recipe.seed
    )
    first = at if template is not None else at + len(marks.begin)
    return Prompt(ids, text, role, first), place


def words_of(
    recipe: LanguageModelRecipe, tokenizer: Tokenizer, place: Place, ids: NDArray[Any]
) -> PromptWords:
    """Return the words that a search draws from.

    Args:
      ids: of the data.

    Raises:
      InputError: there are none.
    """
    used = set(np.unique(ids).tolist()) if recipe.options.get("words") == "data" else None
    return prompt_words(tokenizer, place, used)


def _around(template: ChatTemplate | None) -> tuple[str, str, str]:
    """Return the role of the message that a prompt stands in, and the text on both sides.

    Raises:
      InputError: the template writes neither.
    """
    if template is None:
        return "system", "", f"{_BETWEEN}{_SHORT[0]['content']}\n"
    for role in ("system", "user"):
        try:
            text = template.text(with_prompt(_SHORT, _WORD, role), open_=True)
        except TemplateError:  # it knows no system
            continue
        if text.count(_WORD) == 1:
            before, _, behind = text.partition(_WORD)
            return role, before, behind
    raise InputError(
        "the model's chat template writes no message of the system or the user as it is, so there "
        "is no place for a prompt; use --trainable lora."
    )


def write_prompt(
    folder: Path, prompt: Prompt, base: str, sha256: str, *, soft: bool
) -> dict[str, str]:
    """Write what was learned into a run folder; return the names of its files.

    Raises:
      RunFolderError: it cannot be written.
    """
    about = {**asdict(prompt), "base": base, "base_sha256": sha256, "soft": soft}
    return write_prompt_file(folder, about, text=not soft)


@dataclass(frozen=True)
class KeptPrompt:
    """What `write_prompt` wrote."""

    prompt: Prompt
    base: str
    base_sha256: str
    soft: bool


def read_prompt(folder: Path) -> KeptPrompt:
    """Return the prompt of a run folder, checked.

    Raises:
      ModelError: the file is damaged, or of a later version.
    """
    found = read_prompt_file(folder, {"role": ("system", "user"), "soft": (False, True)})
    prompt = Prompt(tuple(found["ids"]), found["text"], found["role"], found["at"])
    return KeptPrompt(prompt, found["base"], found["base_sha256"], found["soft"] is True)
