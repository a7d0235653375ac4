"""What a language model writes: the same beginning continued before training and after it.

The beginning is of the text that was held out, and what follows is always the most likely token, up
to one that ends an answer: a difference between the two is what was learned, and no luck of a draw.
What the model keeps of the tokens before is for one text: its weights change between the two.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from edge_train.arrays.types import Array
from edge_train.formats.atomic import write_bytes
from edge_train.records.folder import RunFolder

WRITTEN = 24  # tokens: each costs a pass over itself, which reads all weights


class Writer(Protocol):
    """A model that can be asked for one more token."""

    def next_logits(self, ids: Sequence[int]) -> Array:
        """Return the logits of the token after `ids`; may keep what it knows of these."""
        ...

    def forget(self) -> None:
        """Let go of what was kept."""
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
    folder: Path,
    name: str,
    task: Opened,
    tokenizer: Tokenizer,
    runtime: Writer,
    ends: Collection[int] = (),
    most: int = WRITTEN,
) -> None:
    """Write what the model writes after the beginning into the samples of a run folder.

    Args:
      ends: tokens after which nothing is written.
      most: tokens.

    Raises:
      RunFolderError: it cannot be written.
    """
    given = task.opening()
    ids = list(given)
    runtime.forget()  # of other weights
    for _ in range(min(most, task.length - len(given))):
        token = int(runtime.next_logits(ids).argmax())
        if token in ends:
            break
        ids.append(token)
    runtime.forget()  # it would take memory from training
    text = tokenizer.decode(ids).removeprefix(tokenizer.decode(given))
    write_bytes(RunFolder(folder).samples / f"{name}-01.txt", text.encode("utf-8", "replace"))
