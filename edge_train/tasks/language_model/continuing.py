"""What a language model writes: the same beginning continued before training and after it.

The beginning is of the text that was held out, and what follows is always the most likely token: a
difference between the two is what was learned, and no luck of a draw.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_train.formats.atomic import write_bytes
from edge_train.records.folder import RunFolder
from edge_train.tasks.language_model.objective import LanguageModel

# Each token costs a pass over what stands before it: all of it together about half an evaluation.
_GIVEN, _WRITTEN = 16, 24  # tokens


class Writer(Protocol):
    """A model that can be asked for one more token."""

    def next_token(self, ids: Sequence[int]) -> int:
        """Return the most likely token after `ids`."""
        ...


def beginning(task: LanguageModel) -> list[int]:
    """Return the first tokens of the held-out text, at most half of a sequence."""
    held: NDArray[np.int64] = task.held_out(1)["ids"][0]
    first: list[int] = held[: max(1, min(_GIVEN, task.length // 2))].tolist()
    return first


def write_continuation(
    folder: Path, name: str, task: LanguageModel, tokenizer: Tokenizer, runtime: Writer
) -> None:
    """Write what the model writes after the beginning into the samples of a run folder.

    Raises:
      RunFolderError: it cannot be written.
    """
    given = beginning(task)
    ids = list(given)
    for _ in range(min(_WRITTEN, task.length - len(given))):
        ids.append(runtime.next_token(ids))
    text = tokenizer.decode(ids).removeprefix(tokenizer.decode(given))
    write_bytes(RunFolder(folder).samples / f"{name}-01.txt", text.encode("utf-8", "replace"))
