"""What a device that missed rounds is sent: each of them, or where they led, the fewer bytes."""

from collections.abc import Mapping

import numpy as np

from edge_train.fleet.book import Book, Kept, message_of, size_of
from edge_train.fleet.int8 import Matrix, unpack, whole
from edge_train.fleet.rounds import START, round_of
from edge_train.fleet.wire import ASK, END, JUMP, MOST_BYTES, MOST_ENTRIES, Agreed, Asked

_MOST_WAITS = 10  # of devices for a state that nobody gives; then they are sent every round
_ASKED = 2  # devices for their state: two that agree are believed


class Late:
    """Messages to devices by the first round that they do not know.

    Where weights are exchanged the server adds up their means. Where slopes are, all that a run
    holds is asked of devices that are up to date, and of no use where a run may settle early.

    Args:
      book: the server's journal.
      tag: of the fleet.
    """

    def __init__(self, book: Book, tag: bytes) -> None:
        self._book, self._tag = book, tag
        self._sum: list[Matrix] = []
        self._summed = -1  # the last step in the sum
        self._state: tuple[int, bytes] | None = None  # a round, and what a run holds at its start
        self._given: dict[int, bytes] = {}  # by node, of the open round
        self._givers: set[int] = set()  # who is asked for it
        self.wants_state = False
        self._waited = 0  # messages without anything, until there is a state
        self._open = START
        self._are_different = False

    def asked(self, known: int, open_round: int, is_over: bool, about: Mapping[str, int]) -> Asked:
        """Return the message."""
        self._open = open_round
        missed = self._after(known)
        size = sum(size_of(self._book.entries[number]) for number in missed)
        if known == START and not is_over and size > about["state_bytes"]:
            missed = missed[:1]  # it begins; then it can go on from a state
        elif known != START and (jump := self._jump(known, size, missed, is_over, about)):
            return jump
        entries: dict[int, Agreed] = {}
        room = MOST_BYTES
        for number in missed[:MOST_ENTRIES]:
            room -= size_of(self._book.entries[number])
            if room < 0 and entries:
                break
            entries[number] = message_of(self._book.entries[number])
        return Asked(END if is_over else ASK, self._tag, open_round, entries)

    def _after(self, number: int) -> list[int]:
        """Return the rounds from a number on; the newest are looked at first."""
        found = []
        for known in reversed(self._book.entries):  # in their order
            if known < number:
                break
            found.append(known)
        return found[::-1]

    def _jump(
        self, known: int, size: int, missed: list[int], is_over: bool, about: Mapping[str, int]
    ) -> Asked | None:
        if any(isinstance(self._book.entries[number], Kept) for number in missed):
            return self._sum_of(known, missed)
        if about["patience"] or is_over or self._are_different:
            return None
        if self._state is not None and self._state[0] > known:
            number, content = self._state
            rest = sum(size_of(self._book.entries[n]) for n in missed if n >= number)
            if len(content) + rest < size:
                return Asked(JUMP, self._tag, number, state=content)
        newer = self._state[0] if self._state else known
        since = sum(size_of(self._book.entries[n]) for n in missed if n >= newer)
        if since <= about["state_bytes"]:
            return None
        self.wants_state = self._waited < _MOST_WAITS
        self._waited += 1
        return Asked(ASK, self._tag, self._open, {}) if self.wants_state else None

    def _sum_of(self, known: int, missed: list[int]) -> Asked | None:
        """Return the sum of all means up to the last evaluation, if that is less than they are."""
        ends = [number for number in missed if round_of(number).what == "evaluation"]
        if not ends or self._book.entries[ends[-1]] is None:
            return None
        means = [self._book.entries[number] for number in missed if number < ends[-1]]
        size = sum(size_of(mean) for mean in means if isinstance(mean, Kept))
        if size <= 4 * max((one.size for one in means if isinstance(one, Kept)), default=0):
            return None
        state = self._summed_to(round_of(ends[-1]).step)
        entries = {ends[-1]: message_of(self._book.entries[ends[-1]])}
        return Asked(JUMP, self._tag, ends[-1], entries, state=state)

    def _summed_to(self, step: int) -> bytes:
        for number, entry in self._book.entries.items():
            if isinstance(entry, Kept) and self._summed < round_of(number).step <= step:
                mean = unpack(entry.content())
                if not self._sum:
                    self._sum = [np.zeros_like(block) for block in mean]
                for total, block in zip(self._sum, mean, strict=True):
                    total += block
                self._summed = round_of(number).step
        return whole(self._sum)

    def chosen(self, nodes: list[int]) -> list[int]:
        """Return which of the nodes that are up to date are asked for their state."""
        self._givers = set(nodes[:_ASKED]) if self.wants_state else set()
        return nodes[:_ASKED] if self.wants_state else []

    def given(self, node: int, content: bytes) -> None:
        """Take the state of a device that was asked for it."""
        if node in self._givers:
            self._given[node] = content

    def close(self, number: int, quorum: int) -> str:
        """Believe a state that devices agree on; return what to say, if anything."""
        given, self._given = list(self._given.values()), {}
        if not given or len(given) < min(_ASKED, quorum):
            return ""
        self.wants_state, self._waited = False, 0
        if any(one != given[0] for one in given):
            self._are_different = True
            return "devices differ in their state: who comes late is sent every round"
        self._state = number, given[0]
        return f"who comes late is sent a state of {len(given[0])} bytes in place of older rounds"
