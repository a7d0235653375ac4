"""Hashes of what a run reads of its model beside weights, so that it goes on with the same."""

import json
from pathlib import Path

from edge_train.errors import RunFolderError
from edge_train.formats.atomic import write_bytes
from edge_train.formats.tokenizer_files import tokenizer_files
from edge_train.formats.weight_files import hash_of
from edge_train.tasks.job import Say

MODEL_FOLDER = "model"  # of a run: what it learned
_FILE = "model_files.json"


def keep_hashes(folder: Path, model: Path) -> None:
    """Write the hashes of configuration and tokenizer into a run folder."""
    write_bytes(folder / _FILE, (json.dumps(_hashes(model)) + "\n").encode())


def check_hashes(folder: Path, model: Path, say: Say) -> None:
    """Refuse another configuration or tokenizer than the run began with.

    Raises:
      RunFolderError: as described. A run of earlier code, which kept no hashes, goes on.
    """
    path = folder / _FILE
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_bytes())
        if not isinstance(before, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        say(f"{path}: cannot be used ({error}); whether the model is the same is not known.")
        return
    now = _hashes(model)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise RunFolderError(
                f"{folder}: {model / name} is not what it was when this run began; put that file "
                "back, or start a new run."
            )


def _hashes(model: Path) -> dict[str, str]:
    """Return the hash of each file, by name."""
    paths = [model / name for name in ("config.json", *tokenizer_files(model))]
    return {path.name: hash_of([("", path)]) for path in paths if path.is_file()}
