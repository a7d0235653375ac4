"""What a language model writes: the same beginning continued before training and after it.

The beginning is of the text that was held out, and what follows is always the most likely token: a
difference between the two is what was learned, and no luck of a draw.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from edge_train.formats.atomic import write_bytes
from edge_train.records.folder import RunFolder

# Each costs a pass over what stands before it: all of them together about half an evaluation.
_WRITTEN = 24  # tokens


class Writer(Protocol):
    """A model that can be asked for one more token."""

    def next_token(self, ids: Sequence[int]) -> int:
        """Return the most likely token after `ids`."""
        ...


class Opened(Protocol):
    """Where texts that are reported on come from."""

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        ...

    def opening(self) -> list[int]:
        """Return the beginning of a text, or of a chat up to its answer, that can be continued."""
        ...


def write_continuation(
    folder: Path, name: str, task: Opened, tokenizer: Tokenizer, runtime: Writer
) -> None:
    """Write what the model writes after the beginning into the samples of a run folder.

    Raises:
      RunFolderError: it cannot be written.
    """
    given = task.opening()
    ids = list(given)
    for _ in range(min(_WRITTEN, task.length - len(given))):
        ids.append(runtime.next_token(ids))
    text = tokenizer.decode(ids).removeprefix(tokenizer.decode(given))
    write_bytes(RunFolder(folder).samples / f"{name}-01.txt", text.encode("utf-8", "replace"))
