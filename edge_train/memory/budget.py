"""The data limit of a worker: what the cap leaves beside everything that the limit does not count.

    limit = cap - other processes - file pages - slack + idle

`RLIMIT_DATA` counts private writable memory: not file pages (libraries' code, mapped weights),
which are taken off, but also what is mapped and was never touched, which is added again. The slack
stays free for what comes between two looks. Numbers and no clock: `watch.py` measures and sets.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A part of some number of bytes, within bounds."""

    share: float
    least_bytes: int
    most_bytes: int

    def of(self, whole_bytes: int) -> int:
        """Return that part in bytes.

        >>> Share(1 / 20, 16, 64).of(100), Share(1 / 20, 16, 64).of(1000)
        (16, 50)
        """
        return int(min(max(self.least_bytes, self.share * whole_bytes), self.most_bytes))


@dataclass(frozen=True)
class Slack:
    """What stays free between data limit and cap in one phase of a run: the largest of three.

    Attributes:
      least_bytes: whatever the cap is; counters of running threads lag, code is faulted in.
      beyond_bytes: at most this much beside the former, of mapped weights outside their window.
      cap_share: of the cap.
      unread: of libraries' code that is not resident: a first pass faults it in faster than anyone
        looks.
    """

    least_bytes: int
    beyond_bytes: int
    cap_share: float
    unread: Share

    def of(self, cap_bytes: int, beyond_bytes: int, unread_bytes: int) -> int:
        """Return what stays free, for this much of mapped weights beyond their window."""
        least = self.least_bytes + min(beyond_bytes, self.beyond_bytes)
        return max(least, int(self.cap_share * cap_bytes), self.unread.of(unread_bytes))


@dataclass(frozen=True)
class Weights:
    """Weights that are read in place from their file.

    Attributes:
      mapped_bytes: all of them.
      beside_bytes: file pages that are not weights.
      resident: they are mapped and some may be resident; else they are about to be mapped.
    """

    mapped_bytes: int
    beside_bytes: int
    resident: bool = True

    def file_bytes(self, files: int, window_bytes: int) -> int:
        """Return the room for file pages, of which `files` bytes are resident now.

        Weights can all be read between two looks, so the room of their window is taken from the
        start. What is resident beyond it will be released, so it needs none; beside weights that
        are not mapped yet everything that is resident stays.
        """
        room = self.beside_bytes + min(self.mapped_bytes, window_bytes)
        if self.resident:
            return max(room, min(files, self.beside_bytes + window_bytes))
        return max(room, files)


# Mapped weights that may be resident when everything else is full: what is read between two looks.
WINDOW = Share(1 / 20, least_bytes=16_000_000, most_bytes=64_000_000)  # of the cap

# Of libraries' code; with torch, which has 340 MB of it, a slack of 4 MB was too little.
_UNREAD = Share(1 / 16, least_bytes=0, most_bytes=16_000_000)
# A lean run of float weights held 131 MB under 129 MB without the room for weights beyond.
STEADY = Slack(1_500_000, beyond_bytes=2_500_000, cap_share=0.01, unread=_UNREAD)
# Libraries load with the interpreter's lock held, so that nobody looks for a while. With 4 MB,
# bench cap found 101 MB under a cap of 99 MB on a busy machine.
LOADING = Slack(6_500_000, beyond_bytes=0, cap_share=0.01, unread=_UNREAD)
# Memory ran out and words are needed to say so; what was counted late must still fit.
SPENT = Slack(1_000_000, beyond_bytes=0, cap_share=0.0, unread=Share(0.0, 0, 0))


def budget(
    cap_bytes: int,
    *,
    others: int,
    files: int,
    idle: int,
    unread: int,
    weights: Weights | None,
    slack: Slack,
) -> int:
    """Return the private writable memory that this process may map, in bytes.

    Args:
      cap_bytes: what the process tree may hold.
      others: resident bytes of the rest of the tree.
      files: resident file pages of this process.
      idle: mapped, counted by the limit, and never touched.
      unread: code of libraries that is not resident.
      weights: read in place from a file; None where there are none.
      slack: of the phase that the run is in.
    """
    window = WINDOW.of(cap_bytes)
    fixed, beyond = files, 0
    if weights is not None:
        fixed = weights.file_bytes(files, window)
        beyond = max(weights.mapped_bytes - window, 0)
    return cap_bytes - others - fixed - slack.of(cap_bytes, beyond, unread) + idle
