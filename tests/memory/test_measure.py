"""Memory is what the kernel says, of the whole process tree, and the guard compares it."""

import subprocess
import sys

import pytest
from running import STALLED_SECONDS

from edge_train.errors import TrainingStopped
from edge_train.memory import measure as memory
from edge_train.memory.guard import Guard

MEGABYTE = 10**6


def in_fresh_process(code):
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=STALLED_SECONDS,
    )
    return [int(word) for word in found.stdout.split()]


def test_a_spike_stays_in_the_peak_after_it_is_gone():
    before, during, after = in_fresh_process(
        "from edge_train.memory.measure import measure\n"
        "def held(u): return u.resident_bytes, u.peak_bytes\n"
        "a = measure(); spike = bytearray(150_000_000); b = measure(); del spike; c = measure()\n"
        "print(a.peak_bytes, b.resident_bytes - a.resident_bytes, c.peak_bytes)"
    )
    assert 140 * MEGABYTE < during < 170 * MEGABYTE
    assert after - before > 130 * MEGABYTE


def test_children_are_counted():
    (grown,) = in_fresh_process(
        "import subprocess, sys\n"
        "from edge_train.memory.measure import measure\n"
        "a = measure().resident_bytes\n"
        "code = 'x = bytearray(100_000_000); print(1, flush=True); input()'\n"
        "p = subprocess.Popen([sys.executable, '-c', code], stdin=-1, stdout=-1)\n"
        "p.stdout.readline()\n"
        "print(measure().resident_bytes - a)\n"
        "p.communicate(b'x')"
    )
    assert grown > 100 * MEGABYTE


def test_the_guard_says_value_cap_and_what_to_type():
    with pytest.raises(TrainingStopped, match=r"step 7: the run held .* the cap is 1 MB.*--mem"):
        Guard(MEGABYTE, lambda: 0).check(7)


def test_without_a_cap_it_only_measures():
    assert Guard(None, lambda: 0).check(0).peak_bytes > MEGABYTE


def test_on_a_discrete_device_the_cap_is_about_the_device():
    held = [5 * MEGABYTE]
    guard = Guard(10 * MEGABYTE, lambda: held[0])
    assert guard.check(0).peak_bytes == 5 * MEGABYTE
    held[0] = 3 * MEGABYTE
    usage = guard.check(1)
    assert (usage.resident_bytes, usage.peak_bytes) == (3 * MEGABYTE, 5 * MEGABYTE)
    held[0] = 11 * MEGABYTE
    with pytest.raises(TrainingStopped, match="11 MB"):
        guard.check(2)


def test_the_host_side_has_a_cap_of_its_own():
    guard = Guard(10 * MEGABYTE, lambda: MEGABYTE, host_cap_bytes=2 * MEGABYTE)
    with pytest.raises(TrainingStopped, match=r"host side .*--host-mem"):
        guard.check(0)


def test_other_platforms_know_at_least_their_peak(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.measure().peak_bytes > 0
