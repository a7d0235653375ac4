"""How a worker ended, decided from all that its supervisor knows. Standard library only."""

from __future__ import annotations

import signal
from enum import Enum, auto

from edge_train.errors import INTERRUPTED, NOT_STARTED, STOPPED, UNREAD
from edge_train.memory.link import ENDED_AT_ONCE, OUT_OF_MEMORY, Facts
from edge_train.process.interrupts import STOPPING

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Collection

_CHOSEN = {0, NOT_STARTED, STOPPED, INTERRUPTED, UNREAD}  # statuses that a command ends with
_REFUSED_BLOCK = {-signal.SIGSEGV, -signal.SIGBUS}  # so some engines end that did not check it
_LOADER_GAVE_UP = 127  # how glibc ends a process that has no memory for a thread's own data
_FAILED = 1  # Python's own after an error, and a library's that ends the process for want of memory
_GAVE_UP = {-signal.SIGABRT, _LOADER_GAVE_UP}


class Ending(Enum):
    """The five ways in which a worker ends; each has its own answer in `supervisor.py`."""

    PASSED_ON = auto()  # it chose its exit status, which is the command's
    INTERRUPTED = auto()  # it was told to stop, and did without a word
    ENDED_BY_SIGNAL = auto()  # by one that the command was sent
    OUT_OF_MEMORY = auto()  # the next smaller way is tried
    CRASHED = auto()  # neither asked to nor for want of memory


def classify(
    status: int, sent: Collection[int], facts: Facts, killed: str, cap_bytes: int
) -> tuple[Ending, str]:
    """Return how a worker ended and, where memory ran out, what did not fit; else no words.

    What the worker itself said did not fit is always better than what is concluded here.

    Args:
      status: its exit status; negative: the signal that ended it.
      sent: signals that the command was sent, and the worker in turn.
      facts: what it told, and its peak.
      killed: at which limit the kernel ended it for want of memory; empty where it did not.
      cap_bytes: what it may hold.
    """

    def short(concluded: str) -> tuple[Ending, str]:
        return Ending.OUT_OF_MEMORY, facts.shortage or concluded

    if status == ENDED_AT_ONCE or (_told_to_stop(sent) and _is_no_word(status)):
        return Ending.INTERRUPTED, ""  # nothing is started again, whatever it ran out of
    if killed:
        return short(killed)
    if sent and status < 0:
        return Ending.ENDED_BY_SIGNAL, ""
    if status == OUT_OF_MEMORY or (status in _CHOSEN and facts.shortage):
        return short("an allocation failed")
    if status in _CHOSEN:
        return Ending.PASSED_ON, ""
    if not facts.loaded:
        # Libraries that find no memory while they load end the process in ways of their own.
        return short("the interpreter and its libraries did not load")
    # one block that was refused may be as large as all that was held
    if status in _GAVE_UP and facts.peak_bytes > cap_bytes // 2:
        return short("the engine gave up, as it does when memory runs out")
    if status == _FAILED and not (facts.failed or sent) and facts.peak_bytes > cap_bytes // 2:
        return short("a library gave up, as OpenBLAS does when memory runs out")
    if status in _REFUSED_BLOCK and facts.peak_bytes > cap_bytes // 2:
        return short("the engine crashed, as some do when memory runs out")
    return Ending.CRASHED, ""


def _told_to_stop(sent: Collection[int]) -> bool:
    return any(number in STOPPING for number in sent)


def _is_no_word(status: int) -> bool:
    """Return whether a worker neither chose how the command ends nor failed in words of its own."""
    return status < 0 or status == OUT_OF_MEMORY
