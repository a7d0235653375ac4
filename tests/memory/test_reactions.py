"""Near the cap the cheapest thing is done first, and nothing more than is needed."""

import pytest

from edge_train.memory import reactions
from edge_train.memory.measure import Counters
from edge_train.memory.reactions import Look, Reactions

CAP = 1_000_000_000  # the line is 900 MB, the window of mapped weights 50 MB
MEGABYTE = 10**6


class Process:
    """A process that holds private memory, freed memory, libraries and mapped weights, in MB."""

    def __init__(self, private, freed=0, libraries=50, weights=0, resident=0):
        self.private, self.freed, self.libraries = private, freed, libraries
        self.bytes, self.resident, self.kept, self.notes = weights * MEGABYTE, resident, [], []
        self.reactions = Reactions(self.count, self.notes.append)
        self.reactions.adopt(self if weights else None)

    def count(self):
        files = (self.libraries + self.resident) * MEGABYTE
        anon = (self.private + self.freed) * MEGABYTE
        return Counters(files + anon, files, anon, anon)

    def release(self, keep_bytes=0):
        self.kept.append(keep_bytes // MEGABYTE)
        self.resident = min(self.resident, keep_bytes // MEGABYTE)

    def resident_bytes(self):
        return self.resident * MEGABYTE

    def look(self, seconds=10.0, grew_seconds=0.0):
        found = self.count()
        libraries = self.libraries * MEGABYTE
        look = Look(seconds, found.resident, 0, found.files, libraries, grew_seconds)
        self.reactions.react(look, CAP)


@pytest.fixture(autouse=True)
def trimmed(monkeypatch):
    """A list of what was trimmed; `current` is the process whose freed memory it is."""

    class Trimmed(list):
        current = None

    done = Trimmed()

    def trim():
        done.append(done.current.freed)
        done.current.freed = 0

    monkeypatch.setattr(reactions, "give_back_memory", trim)
    return done


def test_below_the_line_nothing_is_done(trimmed):
    process = trimmed.current = Process(private=400, freed=100, weights=500, resident=350)
    process.look()  # 900 MB held
    assert (process.kept, trimmed, process.reactions.wants_less) == ([], [], False)


def test_weights_are_released_first_and_suffice(trimmed):
    process = trimmed.current = Process(private=400, freed=100, weights=500, resident=400)
    process.look()  # 50 MB over
    assert process.kept == [300]  # 50 MB over and 50 MB of window less
    assert process.reactions.released_bytes == 100 * MEGABYTE
    assert (trimmed, process.reactions.wants_less) == ([], False)
    assert process.notes == [
        "memory: 950 MB of 1 GB held; weights are released and read again from their file"
    ]


def test_the_head_of_the_weights_that_stays_only_shrinks():
    process = Process(private=500, weights=500, resident=400)
    process.look()
    process.resident = 360
    process.look()
    process.resident = 500
    process.private = 600
    process.look()
    assert process.kept == sorted(process.kept, reverse=True)
    assert process.reactions.released_bytes > 0
    assert len(process.notes) == 1  # said once


def test_freed_memory_is_given_back_where_releasing_did_not_suffice(trimmed):
    process = trimmed.current = Process(private=800, freed=100, weights=30, resident=10)
    process.look()
    assert trimmed == [100]
    assert not process.reactions.wants_less
    assert process.notes == [
        "memory: 960 MB of 1 GB held; freed memory was given back to the system"
    ]


def test_memory_is_not_trimmed_again_at_once_or_while_code_is_read(trimmed):
    process = trimmed.current = Process(private=800, freed=100)
    process.look(seconds=10.0, grew_seconds=9.8)
    assert trimmed == []
    process.look(seconds=10.2, grew_seconds=9.8)
    process.freed = 100
    process.look(seconds=12.1)
    assert trimmed == [100]
    process.look(seconds=12.3)
    assert trimmed == [100, 100]


def test_smaller_calls_are_asked_for_last_and_only_when_nothing_else_helped(trimmed):
    process = trimmed.current = Process(private=900)
    process.look()
    assert trimmed == [0]
    assert process.reactions.wants_less
    assert process.notes == []
