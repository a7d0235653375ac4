"""Remove the folder of a run that never started. Standard library only."""

from __future__ import annotations

import os
from contextlib import suppress

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Sequence


def remove_unstarted(folder: str, made: Sequence[str]) -> None:
    """Empty a folder in which no step was recorded, and remove what was made for it.

    Args:
      folder: of a run; empty when that run got it.
      made: folders that were made for it, the innermost first; those that hold other things stay.
    """
    with suppress(OSError):
        if os.path.getsize(f"{folder}/journal.jsonl"):  # noqa: PTH202 - pathlib is large
            return
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with suppress(OSError):
                os.unlink(f"{place}/{name}")  # noqa: PTH108
        for name in folders:
            with suppress(OSError):
                os.rmdir(f"{place}/{name}")  # noqa: PTH106
    for name in made:
        with suppress(OSError):
            os.rmdir(name)  # noqa: PTH106
