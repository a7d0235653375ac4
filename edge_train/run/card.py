"""A card that goes away, or is too small, in one sentence; nothing that was learned is on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_train.errors import EdgeTrainError, InputError, TrainingStopped
from edge_train.memory.link import Link
from edge_train.memory.shortage import is_on_gpu, is_shortage, lost_card, shortage

_AGAIN = "see that `nvidia-smi` answers (a restart of the machine brings a driver back)"


def stopped_by_card(reason: str, steps: int, folder: Path) -> TrainingStopped:
    """Return the error of a run whose card stopped answering after some steps."""
    return TrainingStopped(
        f"step {steps}: the GPU stopped answering ({reason}); stopped. {steps} steps are in "
        f"{folder}; {_AGAIN}, then resume with `edge-train run --resume {folder}`."
    )


@contextmanager
def in_words(link: Link) -> Iterator[None]:
    """Turn what a card says before the first step into a sentence.

    Memory that it does not have is left to a worker's parent, which tries a smaller way.

    Raises:
      InputError: it does not answer, or has no room and nobody tries a smaller way.
    """
    try:
        yield
    except EdgeTrainError:
        raise
    except Exception as error:
        if reason := lost_card(error):
            raise InputError(
                f"the GPU does not answer ({reason}); {_AGAIN}, or use --device cpu."
            ) from error
        if link.supervisor is None and is_shortage(error) and is_on_gpu(error):
            raise InputError(
                f"{shortage(error, 0)}: the model and a step are too large for it; use --device "
                "cpu, or name a cap with --mem, and what is smaller is tried."
            ) from error
        raise
