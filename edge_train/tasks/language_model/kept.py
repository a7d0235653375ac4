"""What `prepare` keeps of the data in a run folder: ids, where documents begin, what counts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_train.formats.atomic import write_bytes
from edge_train.methods import drawn_samples
from edge_train.recipe import required
from edge_train.tasks.language_model.objective import LanguageModel
from edge_train.tasks.language_model.packing import PackedDocuments
from edge_train.tasks.language_model.recipe import LanguageModelRecipe
from edge_train.tasks.language_model.token_stream import checksum, id_type, read_ids

IDS_FILE, _ABOUT = "tokens.bin", "tokens.json"
# Beside the ids, for data of several documents: int64, little end first.
_FILES = {
    "starts": "tokens-documents.bin",
    "counted": "tokens-counted.bin",
    "sources": "tokens-sources.bin",
}
_NUMBER = np.dtype("<i8")
_LEAST_HELD, _MOST_HELD = 20, 5  # a twentieth and a fifth of the tokens

Objective = LanguageModel | PackedDocuments


@dataclass(frozen=True)
class Kept:
    """Mapped files and what they are.

    Attributes:
      starts: where documents begin, and for chats the end of the last one; None: one document.
      counted: ranges of ids that are predicted, (ranges, 2); None: all are.
      sources: where each document begins and the number of its source, (documents, 2); None: they
        are not told apart.
      about: `held`, tokens of texts or documents of chats at the end that are held out (None: a
        tenth is); `labels`, tokens that answers begin with, `answers`, these as texts, and
        `prompt`, where a run learns one; `new_line`, whether one stands between most prompts
        without white space at the end and their completions; `chats`, `apart`, `halves`; and how
        the data were read, to read them so again. Runs of earlier code do not have all of these.
    """

    ids: NDArray[Any]
    starts: NDArray[np.int64] | None
    counted: NDArray[np.int64] | None
    about: Mapping[str, Any]
    sources: NDArray[np.int64] | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that training reads, by name."""
        found = {"ids": self.ids, "starts": self.starts, "counted": self.counted}
        found["sources"] = self.sources
        return {name: value for name, value in found.items() if value is not None}

    def objective(self, recipe: LanguageModelRecipe) -> Objective:
        """Return where batches come from.

        Raises:
          InputError: there is too little to train on and to hold out.
        """
        common: dict[str, Any] = {
            "length": required(recipe.length),
            "samples": drawn_samples(recipe),
            "evaluation_samples": required(recipe.evaluation_samples),
            "held": self.about.get("held"),
            "smoothing": recipe.label_smoothing,
            "dropout": recipe.dropout,
            "sources": self.sources,
        }
        if self.about.get("chats"):
            starts, apart = self.starts, bool(self.about["apart"])
            assert starts is not None  # `reopen` read it
            labels = self.about.get("labels")
            choices = None if labels is None else np.array(labels, np.int64)
            apart = apart and choices is None and "prompt" not in self.about
            return PackedDocuments(
                self.ids, starts, self.counted, **common, apart=apart, choices=choices
            )
        halves = bool(self.about.get("halves"))
        return LanguageModel(self.ids, **common, starts=self.starts, halves=halves)


def keep(
    folder: Path,
    vocabulary: int,
    about: Mapping[str, Any],
    starts: Any = None,
    counted: Any = None,
    sources: Any = None,
) -> Kept:
    """Write what belongs to the ids that stand in a folder, and return all of it.

    Args:
      starts, counted, sources: numbers, in a buffer; None: there are none.

    Raises:
      RunFolderError: the folder cannot be written.
    """
    ids = read_ids(folder / IDS_FILE, id_type(vocabulary))
    found: dict[str, Any] = {"tokens": len(ids), "crc32": checksum(ids), **about}
    arrays = {}
    for name, numbers in (("starts", starts), ("counted", counted), ("sources", sources)):
        if numbers is not None:
            arrays[name] = np.array(numbers, _NUMBER).reshape(-1)
            write_bytes(folder / _FILES[name], arrays[name].tobytes())
            found[f"crc32_{name}"] = checksum(arrays[name])
    write_bytes(folder / _ABOUT, (json.dumps(found) + "\n").encode())
    return _kept(ids, arrays, found)


def about_of(folder: Path) -> Mapping[str, Any]:
    """Return what was written of the ids in a folder; nothing where that cannot be read."""
    try:
        found = json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def reopen(folder: Path, vocabulary: int) -> Kept:
    """Return what `keep` wrote.

    Raises:
      OSError, ValueError, KeyError: a file is missing, damaged, or says nothing of itself.
    """
    about = json.loads((folder / _ABOUT).read_bytes())
    ids = read_ids(folder / IDS_FILE, id_type(vocabulary))
    _check(IDS_FILE, ids, about["crc32"])
    if about["tokens"] != len(ids):
        raise ValueError(f"it has {len(ids)} tokens, not {about['tokens']}")
    arrays = {}
    for name, file in _FILES.items():
        if f"crc32_{name}" in about:
            arrays[name] = np.fromfile(folder / file, _NUMBER)
            _check(file, arrays[name], about[f"crc32_{name}"])
    if about.get("chats") and "starts" not in arrays:
        raise ValueError("it does not say where chats begin")
    return _kept(ids, arrays, about)


def tenth_of_documents(starts: Any, tokens: int) -> int | None:
    """Return about a tenth of the tokens, so many that they begin with a document.

    None where no document begins near there.

    >>> tenth_of_documents([0, 40, 88, 95], 100), tenth_of_documents([0, 10], 100)
    (12, None)
    """
    found = tokens - np.array(starts, np.int64)
    found = found[(found >= tokens / _LEAST_HELD) & (found <= tokens / _MOST_HELD)]
    if not len(found):
        return None
    return int(found[np.abs(found - tokens // 10).argmin()])


def _kept(ids: NDArray[Any], arrays: Mapping[str, Any], about: Mapping[str, Any]) -> Kept:
    counted = arrays.get("counted")
    ranges = None if counted is None else counted.reshape(-1, 2)
    sources = arrays.get("sources")
    pairs = None if sources is None else sources.reshape(-1, 2)
    return Kept(ids, arrays.get("starts"), ranges, about, pairs)


def _check(name: str, values: NDArray[Any], crc: str) -> None:
    if checksum(values) != crc:
        raise ValueError(f"the checksum of {name} does not match")
