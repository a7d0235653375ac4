"""Which files beside the weights belong to a model: its tokenizer, templates, settings, licence."""

import re
from pathlib import Path

from edge_train.formats.inside import wrong_place

_MOST_BYTES = 128_000_000  # the largest published tokenizer.json has a third of it
# By name, not by ending: a folder may hold the texts that a model is trained on, and no result
# may carry those away.
_BELONGS = re.compile(
    r"(.*config\.json|.*tokenizer.*\.(json|model)|tekken\.json|special_tokens_map\.json"
    r"|added_tokens\.json|vocab.*\.(json|txt|model)|merges\.txt|dict\.txt|bpe\.codes"
    r"|.*\.(jinja|spm|model|bpe|tiktoken|vocab)|chat_template\.json|modules\.json"
    r"|README\.md|(LICENSE|LICENCE|NOTICE|USE_POLICY|COPYING).*)",
    re.IGNORECASE,
)
_TEMPLATES = "additional_chat_templates"  # a folder of them, as transformers writes it


def model_texts(folder: Path) -> list[Path]:
    """Return the files of a model folder that a result needs beside its weights, by name.

    `config.json` is among them; weights, their index and code never are, nor links to elsewhere.
    """
    found = [path for path in sorted(folder.iterdir()) if _BELONGS.fullmatch(path.name)]
    found += sorted((folder / _TEMPLATES).glob("*.jinja"))
    return [
        path
        for path in found
        if path.is_file() and path.stat().st_size <= _MOST_BYTES and not wrong_place(path, folder)
    ]
