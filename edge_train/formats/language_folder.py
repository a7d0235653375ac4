"""Causal language models on disk, in the layout of transformers: checked without any engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.transformers_folder import UNLIMITED, read_config
from edge_train.formats.weight_files import choose_weights, hash_of

_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class LanguageFolder:
    """A checked folder: `config.json`, `tokenizer.json` and safetensors weights, if any.

    Attributes:
      config: the contents of `config.json`.
      vocabulary: rows of the token table.
      positions: tokens in a sequence at most.
      files: the opened weight files; none where a run starts from random weights.
    """

    path: Path
    config: Mapping[str, Any]
    vocabulary: int
    positions: int
    files: tuple[TensorFile, ...]

    def sha256(self) -> str:
        """Return one hash over the configuration and over names and contents of weight files."""
        paths = (self.path / "config.json", *(file.path for file in self.files))
        return hash_of((path.name, path) for path in paths)


def open_language_model(path: Path) -> LanguageFolder:
    """Return a checked folder of a causal language model.

    Raises:
      ModelError: it is no such folder, wants code of its own to be run, or holds weights that are
        no safetensors.
    """
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path}: no config.json; expected the folder of a transformers language model (Llama, "
            "GPT-2, ...)."
        )
    config = read_config(path)
    try:
        vocabulary = int(config["vocab_size"])
        positions = int(config.get("max_position_embeddings", config.get("n_positions", 0)))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path / 'config.json'}: a value is missing or of a wrong type ({error}); copy or "
            "download the model again."
        ) from error
    names = {file.name for file in path.iterdir()}
    files: tuple[TensorFile, ...] = ()
    if any(name.endswith(_WEIGHT_SUFFIXES) for name in names):
        files = tuple(TensorFile(path / name) for name in choose_weights(names, path))
    return LanguageFolder(path, config, vocabulary, positions or UNLIMITED, files)
