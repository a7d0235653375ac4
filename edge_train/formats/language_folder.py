"""Causal language models on disk, in the layout of transformers: checked without any engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edge_train.errors import ModelError
from edge_train.formats.adapter import CONFIG_FILE as ADAPTER_CONFIG
from edge_train.formats.gguf.adapter_file import is_adapter_file
from edge_train.formats.packed_weights import refuse_packed
from edge_train.formats.tensor_file import TensorFile, WeightFile
from edge_train.formats.tokenizer_files import open_with_size
from edge_train.formats.tokenizer_size import NOT_COUNTED, TokenizerSize
from edge_train.formats.transformers_folder import (
    check_heads,
    layers_of,
    positions_of,
    vocabulary_of,
)
from edge_train.formats.weight_files import hash_of, open_weights, read_json

_OF_A_RUN = "model"  # the folder in a run whose weights were all trained
_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Made:
    """What stands beside weights in a folder, for a model that is one file.

    Attributes:
      settings: the contents of `tokenizer_config.json`.
      size: of the tokenizer.
    """

    tokenizer: Tokenizer
    settings: Mapping[str, Any]
    size: TokenizerSize = NOT_COUNTED


@dataclass(frozen=True)
class LanguageFolder:
    """A checked folder: `config.json`, `tokenizer.json` and safetensors weights, if any.

    Attributes:
      path: the folder, or the one file that a model is.
      config: the contents of `config.json`.
      vocabulary: rows of the token table.
      positions: tokens in a sequence at most.
      files: the opened weight files; none where a run starts from random weights.
      base: what others find it by: a hub id, or the whole path.
      made: what a folder would hold beside weights, where the model is one file.
    """

    path: Path
    config: Mapping[str, Any]
    vocabulary: int
    positions: int
    files: tuple[WeightFile, ...]
    base: str = ""
    made: Made | None = None

    @property
    def rewritten(self) -> tuple[TensorFile, ...]:
        """The files whose names and types a result keeps; one of other kinds has float32."""
        return tuple(file for file in self.files if isinstance(file, TensorFile))

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises:
          ModelError: it is missing or damaged.
        """
        return self.tokenizer_with_size()[0]

    def tokenizer_with_size(self) -> tuple[Tokenizer, TokenizerSize]:
        """Return the tokenizer, and how much there is in it.

        Raises:
          ModelError: it is missing or damaged.
        """
        if self.made is not None:
            return self.made.tokenizer, self.made.size
        return open_with_size(self.path, self.vocabulary)

    def sha256(self) -> str:
        """Return one hash over the configuration and over names and contents of weight files.

        Of a model that is one file its contents alone: people rename it.
        """
        if self.made is not None:
            return hash_of(("", file.path) for file in self.files)
        paths = (self.path / "config.json", *(file.path for file in self.files))
        return hash_of((path.name, path) for path in paths)

    def is_known_as(self, sha256: str) -> bool:
        """Return whether a hash is of this model: as `sha256` has it, or as earlier code had."""
        if sha256 == self.sha256():
            return True
        files = self.files if self.made is not None else ()
        return bool(files) and sha256 == hash_of((file.path.name, file.path) for file in files)


def open_language_model(path: Path, base: str | None = None) -> LanguageFolder:
    """Return a checked folder of a causal language model.

    Args:
      base: what others find it by, if that is no path.

    Raises:
      ModelError: it is no such folder, or holds weights that are
        no safetensors.
    """
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: {_what_instead(path)}")
    config = read_json(path / "config.json")
    if isinstance(config.get("text_config"), dict) and "vocab_size" not in config:
        raise ModelError(
            f"{path}: a {config.get('model_type')!r} is a model of texts and other things "
            "(pictures, sound), which is not trained; name a model of texts alone."
        )
    try:
        vocabulary, positions = vocabulary_of(config), positions_of(config)
        layers_of(config)  # a plan asks for these later
        check_heads(config)
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


def _what_instead(path: Path) -> str:
    """Return what a folder without `config.json` is, and what to name."""
    go_on = "name its base, and to go on from what was learned, --from with it."
    if path.is_dir() and (found := sorted(path.glob("*.gguf"))):
        models = [file for file in found if not is_adapter_file(file)]
        if models:
            return f"a folder of GGUF files; name one of them: {models[0]}."
        return f"{found[0].name} in it is an adapter, which has no model in it; {go_on}"
    if (path / ADAPTER_CONFIG).is_file():
        return f"is an adapter, which has no model in it; {go_on}"
    if (path / _OF_A_RUN / "config.json").is_file():
        return f"no config.json; the model in it is {path / _OF_A_RUN}."
    return (
        "no config.json; expected the folder of a transformers language model (Llama, GPT-2, ...)."
    )
