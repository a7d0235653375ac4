"""A prompt that is learned before every chat: where it stands, how it begins and is kept."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.errors import InputError, ModelError, TemplateError
from edge_train.formats.atomic import write_bytes
from edge_train.formats.chat_template import ChatTemplate
from edge_train.formats.prompt_words import Place, PromptWords, first_prompt, prompt_words
from edge_train.methods.discrete import PROMPT_TOKENS
from edge_train.tasks.language_model.chats import Chat
from edge_train.tasks.language_model.marks import Marks
from edge_train.tasks.language_model.recipe import LanguageModelRecipe

PROMPT_FILE, TEXT_FILE, VECTORS_FILE = "prompt.json", "prompt.txt", "prompt.safetensors"
BLOCK = "prompt"
_VERSION = 1
_BETWEEN = "\n\n"
_WORD = "kaleidoscope"  # that no template holds
_SHORT = ({"role": "user", "content": "a"},)
_MOST_BYTES = 1 << 20


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
    text = json.dumps({"version": _VERSION, **about}, ensure_ascii=False, indent=1)
    write_bytes(folder / PROMPT_FILE, (text + "\n").encode())
    if soft:
        return {"prompt": PROMPT_FILE}
    write_bytes(folder / TEXT_FILE, (prompt.text + "\n").encode())
    return {"prompt": PROMPT_FILE, "prompt_text": TEXT_FILE}


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
    path = folder / PROMPT_FILE
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise TypeError("it holds no object")
        if found.get("version") != _VERSION:
            raise ValueError(f"it is of version {found.get('version')!r}, not {_VERSION}")
        ids, at = found["ids"], found["at"]
        texts = [found[name] for name in ("text", "role", "base", "base_sha256")]
        numbers = isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids)
        if not (numbers and ids and type(at) is int and at >= 0):
            raise ValueError("its tokens are no whole numbers")
        if not all(isinstance(one, str) for one in texts) or type(found["soft"]) is not bool:
            raise TypeError("its texts are no texts")
        if texts[1] not in ("system", "user"):
            raise ValueError(f"its role is {texts[1][:40]!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be used ({error}); resume the run again.") from error
    prompt = Prompt(tuple(ids), texts[0], texts[1], at)
    return KeptPrompt(prompt, texts[2], texts[3], found["soft"])
