"""Where a text begins and an answer ends: tokens of the model, and those of its template."""

from typing import Any

from tokenizers import Tokenizer

from edge_train.errors import TemplateError
from edge_train.formats.chat_template import ChatTemplate
from edge_train.formats.language_folder import LanguageFolder
from edge_train.formats.weight_files import read_json

_PROBE = "edge"  # what a chat is written with, to see what its template puts behind an answer
_FILES = ("tokenizer_config.json", "generation_config.json")


def ends_of(
    model: LanguageFolder, tokenizer: Tokenizer, template: ChatTemplate | None
) -> frozenset[int]:
    """Return the tokens that end an answer.

    Raises:
      ModelError: a file of the model is damaged.
    """
    settings: dict[str, Any] = {}
    if model.made is not None:
        settings |= model.made.settings
    else:
        for name in _FILES:
            if (model.path / name).is_file():
                settings |= read_json(model.path / name)
    found: set[int] = set()
    for ids in (model.config.get("eos_token_id"), settings.get("eos_token_id")):
        several = ids if isinstance(ids, list) else [ids]
        found |= {one for one in several if type(one) is int}
    word = settings.get("eos_token")
    word = word.get("content") if isinstance(word, dict) else word
    named = tokenizer.token_to_id(word) if isinstance(word, str) else None
    behind = _behind_an_answer(tokenizer, template)
    return frozenset(found | {one for one in (named, behind) if one is not None})


def begin_text(tokenizer: Tokenizer) -> str:
    """Return the text of what a tokenizer puts before every text by itself."""
    full = tokenizer.encode("a").ids
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    at = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
    return "".join(tokenizer.id_to_token(one) or "" for one in full[:at])


def end_texts(model: LanguageFolder, template: ChatTemplate | None) -> list[str]:
    """Return the texts of the tokens that end an answer.

    Raises:
      ModelError: a file of the model is damaged.
    """
    tokenizer = model.tokenizer()
    words = (tokenizer.id_to_token(one) for one in sorted(ends_of(model, tokenizer, template)))
    return [word for word in words if word]


def _behind_an_answer(tokenizer: Tokenizer, template: ChatTemplate | None) -> int | None:
    """Return the special token that a template puts behind an answer, if it puts one."""
    if template is None:
        return None
    chat = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
    try:
        text = template.text(chat)
    except TemplateError:
        return None
    ids = tokenizer.encode(text.rpartition(_PROBE)[2], add_special_tokens=False).ids
    known = tokenizer.get_added_tokens_decoder()
    return next((one for one in ids if one in known and known[one].special), None)
