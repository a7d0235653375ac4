"""What is done when memory runs short, cheapest first, until the cap is far enough again."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from edge_train.memory.budget import WINDOW
from edge_train.memory.measure import Counters, give_back_memory
from edge_train.units import format_bytes

LINE = 0.9  # share of the cap above which something is done
STILL_SECONDS = 0.3  # without a new file page: then no code is being read
_TRIM_SECONDS = 2.0  # between two times that freed memory is given back


class Pages(Protocol):
    """Mapped weights: `runtimes/mapped_file.py`."""

    @property
    def bytes(self) -> int:
        """How many bytes of weights lie in the file."""

    def release(self, keep_bytes: int = 0) -> None:
        """Let go of resident pages behind the first `keep_bytes`."""

    def resident_bytes(self) -> int | None:
        """Return how much of them is resident in this process, None where nobody knows."""


class Look(NamedTuple):
    """What one look found, in bytes.

    Attributes:
      seconds: when, on the monotonic clock.
      held: by the whole process tree.
      others: by the rest of the tree.
      files: resident file pages of this process.
      libraries: the part of them that is not mapped weights; None where nobody knows yet.
      grew_seconds: when there last were more file pages than ever.
    """

    seconds: float
    held: int
    others: int
    files: int
    libraries: int | None
    grew_seconds: float


class Reactions:
    """Releases, trims and asks for less; each says so the first time that it is done.

    Args:
      count: returns the counters of this process now.
      note: keeps what was done for the journal.

    Attributes:
      released_bytes: mapped weights let go in all; every one of them was, or will be, read again.
      wants_less: nothing is left to release; whoever runs the model should make its calls smaller
        and set this back.
    """

    def __init__(self, count: Callable[[], Counters], note: Callable[[str], None]) -> None:
        self.released_bytes = 0
        self.wants_less = False
        self._count, self._note = count, note
        self._pages: Pages | None = None
        self._kept = 0  # head of the weights that stays; only shrinks
        self._next_trim = 0.0
        self._said: set[str] = set()

    def adopt(self, pages: Pages | None) -> None:
        """Release these mapped weights when memory is needed; None: they are gone."""
        self._pages = pages
        self._kept = pages.bytes if pages is not None else 0

    def react(self, look: Look, cap_bytes: int) -> None:
        """Bring what is held below the line, if it is above it."""
        if look.held <= LINE * cap_bytes:
            return
        over = look.held - int(LINE * cap_bytes)
        for reaction in (self._release_weights, self._trim, self._ask_for_less):
            if over > 0:
                over -= reaction(look, cap_bytes, over)

    def _release_weights(self, look: Look, cap_bytes: int, over: int) -> int:
        """Release mapped weights, also those read between two looks; return the bytes freed."""
        if self._pages is None:
            return 0
        mapped = look.files - (look.libraries or 0)
        window = WINDOW.of(cap_bytes)
        self._kept = min(self._kept, max(mapped - over - window, 0))
        if mapped <= min(self._kept + window // 4, self._pages.bytes):
            return 0
        self._pages.release(self._kept)
        freed = look.files - self._count().files
        self.released_bytes += max(freed, 0)
        self._say(look, cap_bytes, "weights are released and read again from their file")
        return freed

    def _trim(self, look: Look, cap_bytes: int, over: int) -> int:
        """Give freed memory back to the system; return how much less is held than at the look.

        Takes many milliseconds in which nobody looks, so never while code is being read.
        """
        if look.seconds < max(self._next_trim, look.grew_seconds + STILL_SECONDS):
            return 0
        self._next_trim = look.seconds + _TRIM_SECONDS
        give_back_memory()
        freed = look.held - look.others - self._count().resident
        if freed > 0:
            self._say(look, cap_bytes, "freed memory was given back to the system")
        return freed

    def _ask_for_less(self, look: Look, cap_bytes: int, over: int) -> int:
        """Ask for smaller calls; they free nothing before the next step."""
        self.wants_less = True
        return 0

    def _say(self, look: Look, cap_bytes: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            held, cap = format_bytes(look.held), format_bytes(cap_bytes)
            self._note(f"memory: {held} of {cap} held; {text}")
