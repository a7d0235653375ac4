"""What folders of transformers share: a configuration that may not bring code of its own."""

from pathlib import Path

from edge_train.errors import ModelError
from edge_train.formats.weight_files import Config, read_json

UNLIMITED = 1 << 20  # positions of a network that names no limit


def read_config(path: Path) -> Config:
    """Return `config.json` of a folder.

    Raises:
      ModelError: it cannot be read, or wants code of its own to be run.
    """
    config = read_json(path / "config.json")
    if "auto_map" in config:
        raise ModelError(
            f"{path}: its config.json names code of its own (auto_map), and code from a model "
            "folder is never run; use a model of a kind that transformers knows."
        )
    return config
