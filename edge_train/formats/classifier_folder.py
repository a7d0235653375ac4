"""Sequence classifiers on disk, in the layout of transformers: checked without any engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.transformers_folder import UNLIMITED, read_config
from edge_train.formats.weight_files import choose_weights, hash_of
from edge_train.rng import Key

_HEAD = -4  # the step of the key that a new head is drawn from
_HEAD_DEVIATION = 0.02  # of its weights, as BERT's own
# Networks that give position `pad + 1` to the first token.
_PAD_BEFORE_POSITIONS = ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm")


@dataclass(frozen=True)
class ClassifierFolder:
    """A checked folder: `config.json`, safetensors weights and a tokenizer.

    Attributes:
      config: the contents of `config.json`.
      labels: what the outputs are called, in their order.
      vocabulary: rows of the token table.
      positions: ids in a text at most.
      pad: the id that fills short texts; that of the end where the configuration names none.
    """

    path: Path
    config: Mapping[str, Any]
    labels: tuple[str, ...]
    vocabulary: int
    positions: int
    pad: int

    def weight_files(self) -> tuple[TensorFile, ...]:
        """Return the opened weight files."""
        names = choose_weights({path.name for path in self.path.iterdir()}, self.path)
        return tuple(TensorFile(self.path / name) for name in names)

    def sha256(self) -> str:
        """Return one hash over the names and contents of all weight files."""
        return hash_of((weights.path.name, weights.path) for weights in self.weight_files())


def initial_head(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return the start values of a head that no file holds: small weights, biases of zero."""
    values = Key(seed, _HEAD).generator("head", name).standard_normal(shape, np.float32)
    values *= np.float32(_HEAD_DEVIATION if len(shape) > 1 else 0.0)
    return values


def open_classifier(path: Path) -> ClassifierFolder:
    """Return a checked classifier folder.

    Raises:
      ModelError: it is no such folder, wants code of its own to be run, or holds no safetensors.
    """
    if (path / "model_index.json").is_file():
        raise ModelError(
            f"{path} is a Stable Diffusion folder; task 'classify' trains a transformers sequence "
            "classifier (BERT, RoBERTa, MiniLM, ...). Name one, or leave out the task."
        )
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path}: no config.json; expected the folder of a transformers sequence classifier."
        )
    config = read_config(path)
    try:
        kind, vocabulary = str(config["model_type"]), int(config["vocab_size"])
        names = config.get("id2label")
        count = int(config.get("num_labels", 2))
        labels = tuple(names[key] for key in sorted(names, key=int)) if names else None
        labels = labels or tuple(f"LABEL_{number}" for number in range(count))
        fills = (config.get("pad_token_id"), config.get("eos_token_id"))
        pad = next((number for number in fills if isinstance(number, int)), 0)
        limits = (config.get("max_position_embeddings"), config.get("n_positions"))
        positions = int(next((limit for limit in limits if limit is not None), UNLIMITED))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path / 'config.json'}: a value is missing or of a wrong type ({error}); copy or "
            "download the model again."
        ) from error
    if not labels:
        raise ModelError(f"{path}: the model has no output; a classifier needs one at least.")
    if kind in _PAD_BEFORE_POSITIONS:
        positions -= pad + 1
    folder = ClassifierFolder(path, config, labels, vocabulary, positions, pad)
    folder.weight_files()
    return folder
