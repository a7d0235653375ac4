"""`prompt.json` and `prompt.txt` of a run that searched words, which every task writes alike."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError
from edge_train.formats.atomic import write_bytes

PROMPT_FILE, TEXT_FILE = "prompt.json", "prompt.txt"
_VERSION = 1
_MOST_BYTES = 1 << 20


def write_prompt_file(
    folder: Path, about: Mapping[str, Any], *, text: bool = True
) -> dict[str, str]:
    """Write a prompt into a run folder; return the names of its files.

    Args:
      about: `ids`, `text`, `at`, `base` and `base_sha256`, and what a task adds.
      text: whether the words are what was learned, so that they get a file of their own.

    Raises:
      RunFolderError: it cannot be written.
    """
    whole = json.dumps({"version": _VERSION, **about}, ensure_ascii=False, indent=1)
    write_bytes(folder / PROMPT_FILE, (whole + "\n").encode())
    if not text:
        return {"prompt": PROMPT_FILE}
    write_bytes(folder / TEXT_FILE, (about["text"] + "\n").encode())
    return {"prompt": PROMPT_FILE, "prompt_text": TEXT_FILE}


def read_prompt_file(folder: Path, allowed: Mapping[str, tuple[object, ...]]) -> dict[str, Any]:
    """Return what `write_prompt_file` wrote, checked.

    Args:
      allowed: what each key that a task added may be.

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
        numbers = isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids)
        if not (numbers and ids and type(at) is int and at >= 0):
            raise ValueError("its tokens are no whole numbers")
        if not all(isinstance(found[name], str) for name in ("text", "base", "base_sha256")):
            raise TypeError("its texts are no texts")
        for name, values in allowed.items():
            if found[name] not in values or type(found[name]) is not type(values[0]):
                raise ValueError(f"its {name} is {str(found[name])[:40]!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be used ({error}); resume the run again.") from error
    return found
