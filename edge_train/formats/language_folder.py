"""Causal language models on disk, in the layout of transformers: checked without any engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import ModelError
from edge_train.formats.packed_weights import refuse_packed
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.transformers_folder import layers_of, positions_of, vocabulary_of
from edge_train.formats.weight_files import hash_of, open_weights, read_json

_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class LanguageFolder:
    """A checked folder: `config.json`, `tokenizer.json` and safetensors weights, if any.

    Attributes:
      config: the contents of `config.json`.
      vocabulary: rows of the token table.
      positions: tokens in a sequence at most.
      files: the opened weight files; none where a run starts from random weights.
      base: what others find it by: a hub id, or the whole path.
    """

    path: Path
    config: Mapping[str, Any]
    vocabulary: int
    positions: int
    files: tuple[TensorFile, ...]
    base: str = ""

    def sha256(self) -> str:
        """Return one hash over the configuration and over names and contents of weight files."""
        paths = (self.path / "config.json", *(file.path for file in self.files))
        return hash_of((path.name, path) for path in paths)


def open_language_model(path: Path, base: str | None = None) -> LanguageFolder:
    """Return a checked folder of a causal language model.

    Args:
      base: what others find it by, if that is no path.

    Raises:
      ModelError: it is no such folder, or holds weights that are
        no safetensors.
    """
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path}: no config.json; expected the folder of a transformers language model (Llama, "
            "GPT-2, ...)."
        )
    config = read_json(path / "config.json")
    if isinstance(config.get("text_config"), dict) and "vocab_size" not in config:
        raise ModelError(
            f"{path}: a {config.get('model_type')!r} is a model of texts and other things "
            "(pictures, sound), which is not trained; name a model of texts alone."
        )
    try:
        vocabulary, positions = vocabulary_of(config), positions_of(config)
        layers_of(config)  # a plan asks for it later
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path / 'config.json'}: a value is missing or of a wrong type ({error}); copy or "
            "download the model again."
        ) from error
    names = {file.name for file in path.iterdir()}
    files: tuple[TensorFile, ...] = ()
    if any(name.endswith(_WEIGHT_SUFFIXES) for name in names):
        files = open_weights(path)
    refuse_packed(path, config, files)
    return LanguageFolder(path, config, vocabulary, positions, files, base or str(path.resolve()))
