"""Sequence classifiers on disk, in the layout of transformers: checked without any engine."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.errors import ModelError
from edge_train.formats.packed_weights import refuse_packed
from edge_train.formats.tensor_file import TensorFile
from edge_train.formats.transformers_folder import (
    first_id,
    positions_of,
    vocabulary_of,
    whole_number,
)
from edge_train.formats.weight_files import hash_of, open_weights, read_json
from edge_train.rng import Key
from edge_train.units import shown

_HEAD = -4  # the step of the key that a new head is drawn from
_HEAD_DEVIATION = 0.02  # of its weights, as BERT's own
_MOST_LABELS = 1_000_000  # that a configuration can count without naming them
_NORM = re.compile(r"(norm|ln)\w*\.weight$", re.IGNORECASE)
# Networks that give position `pad + 1` to the first token.
_PAD_BEFORE_POSITIONS = (
    *("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl"),
    *("longformer", "mpnet", "data2vec-text", "ibert", "xmod"),
)
# What the last layer of classifiers is called in files.
_OUTPUTS = ("classifier.", "score.", "classification_head.", "logits_proj.", "sequence_summary.")


@dataclass(frozen=True)
class ClassifierFolder:
    """A checked folder: `config.json`, safetensors weights and a tokenizer.

    Attributes:
      config: the contents of `config.json`.
      labels: what the outputs are called, in their order.
      has_head: whether the files hold outputs that tell classes of texts apart; the labels of a
        folder without are those of the data, see `with_labels`.
      vocabulary: rows of the token table.
      positions: ids in a text at most.
      pad: the id that fills short texts; that of the end where the configuration names none.
      base: what others find it by: a hub id, or the whole path.
    """

    path: Path
    config: Mapping[str, Any]
    labels: tuple[str, ...]
    vocabulary: int
    positions: int
    pad: int
    has_head: bool = True
    base: str = ""

    def with_labels(self, labels: Sequence[str]) -> "ClassifierFolder":
        """Return the same folder with a new head: an output for each of these classes."""
        return replace(self, labels=tuple(labels), has_head=False)

    @property
    def takes_types(self) -> bool:
        """Whether the network wants to know which text of a pair an id belongs to."""
        return wants_types(self.config)

    def weight_files(self) -> tuple[TensorFile, ...]:
        """Return the opened weight files."""
        return open_weights(self.path)

    def sha256(self) -> str:
        """Return one hash over the names and contents of all weight files."""
        return hash_of((weights.path.name, weights.path) for weights in self.weight_files())


def wants_types(config: Mapping[str, Any]) -> bool:
    """Return whether a network wants to know which text of a pair an id belongs to."""
    rows = config.get("type_vocab_size")
    return config.get("model_type") == "xlnet" or (isinstance(rows, int) and rows > 1)


def initial_head(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return the start values of a head that no file holds.

    Small weights, biases of zero; norms that change nothing.
    """
    if len(shape) == 1 and _NORM.search(name):
        return np.ones(shape, np.float32)
    values = Key(seed, _HEAD).generator("head", name).standard_normal(shape, np.float32)
    values *= np.float32(_HEAD_DEVIATION if len(shape) > 1 else 0.0)
    return values


def open_classifier(path: Path, base: str | None = None) -> ClassifierFolder:
    """Return a checked classifier folder.

    Args:
      base: what others find it by, if that is no path.

    Raises:
      ModelError: it is no such folder, or holds no safetensors.
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
    config = read_json(path / "config.json")
    try:
        kind, vocabulary = str(config["model_type"]), vocabulary_of(config)
        names = config.get("id2label")
        count = whole_number(config.get("num_labels", 2), most=_MOST_LABELS)
        labels = tuple(names[key] for key in sorted(names, key=int)) if names else None
        labels = labels or tuple(f"LABEL_{number}" for number in range(count))
        fills = (config.get("pad_token_id"), first_id(config.get("eos_token_id")))
        pad = next((number for number in fills if type(number) is int and number >= 0), 0)
        if pad >= vocabulary:
            raise ValueError(f"pad_token_id is {shown(pad)}, above the {vocabulary} known tokens")
        positions = positions_of(config)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"{path / 'config.json'}: a value is missing or of a wrong type ({error}); copy or "
            "download the model again."
        ) from error
    if not labels:
        raise ModelError(f"{path}: the model has no output; a classifier needs one at least.")
    if kind in _PAD_BEFORE_POSITIONS:
        positions -= pad + 1
    folder = ClassifierFolder(path, config, labels, vocabulary, positions, pad)
    files = folder.weight_files()
    refuse_packed(path, config, files)
    return replace(folder, has_head=_has_head(config, files), base=base or str(path.resolve()))


def _has_head(config: Mapping[str, Any], files: Sequence[TensorFile]) -> bool:
    """Return whether the files hold a head for classes of texts, not of tokens or answers."""
    kinds = config.get("architectures") or ["ForSequenceClassification"]
    if not isinstance(kinds, list):  # nothing that transformers writes
        return False
    stored = any(name.startswith(_OUTPUTS) for file in files for name in file.entries)
    return stored and any("ForSequenceClassification" in str(kind) for kind in kinds)
