"""The watch sees what happens between steps, keeps it small, and acts before the cap is reached."""

import json
import mmap
import os
import subprocess
import sys
import threading

import pytest
from running import STALLED_SECONDS

from edge_train.memory.history import History
from edge_train.memory.watch import Watch

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="counters of Linux"),
]
MEGABYTE = 10**6


# Waits for looks of the watch's thread, however late a busy machine lets it have them.
LOOKS = """
import json, mmap, resource, time
from edge_train.memory import watch as module
from edge_train.memory.watch import Watch

real_sleep, asked = time.sleep, []

def sleep(seconds):
    asked.append(seconds)  # only the watch sleeps by this name
    real_sleep(seconds)

time.sleep = sleep

def looks(count):
    goal = len(asked) + count
    while len(asked) < goal:
        real_sleep(0.001)

def limit():
    return resource.getrlimit(resource.RLIMIT_DATA)[0]
"""


def in_fresh_process(code):
    done = subprocess.run(
        [sys.executable, "-c", LOOKS + code],
        capture_output=True,
        text=True,
        timeout=STALLED_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def look_again(watch):
    """Return once the thread of a watch has looked twice."""
    look, seen, enough = watch._look, [], threading.Event()

    def counted():
        held = look()
        seen.append(held)
        if len(seen) == 2:
            enough.set()
        return held

    watch._look = counted
    assert enough.wait(STALLED_SECONDS)
    watch._look = look


def test_a_spike_of_a_tenth_of_a_second_is_in_the_history():
    held, anon, asked = in_fresh_process(
        "watch = Watch(None).start()\n"
        "real_sleep(0.2); looks(2); spike = bytearray(80_000_000); looks(2); del spike\n"
        "real_sleep(0.2); looks(2)\n"
        "(record,) = watch.drain(3, last=True); watch.stop()\n"
        "assert (record['kind'], record['step']) == ('memory', 3)\n"
        "print(json.dumps([record['held_bytes'], record['anon_bytes'], asked]))"
    )
    assert max(held) - held[0] > 70 * MEGABYTE
    assert held[-1] - held[0] < 10 * MEGABYTE
    assert max(anon) - anon[0] > 70 * MEGABYTE
    assert max(asked) <= 0.05  # seconds between looks, so that one of them falls into the spike


def test_what_others_hold_does_not_depend_on_how_fast_this_process_grows():
    seen, held = in_fresh_process(
        "import subprocess, sys\n"
        "from edge_train.memory import measure\n"
        "code = 'print(1, flush=True); input()'\n"
        "child = subprocess.Popen([sys.executable, '-c', code], stdin=-1, stdout=-1)\n"
        "child.stdout.readline()\n"
        "real, grown = measure._status, []\n"
        "def status(process):\n"
        "    found = real(process)\n"
        "    grown.append(bytearray(b'x') * 8_000_000)  # right after anybody was measured\n"
        "    return found\n"
        "measure._status = status\n"
        "watch = Watch(10**9); seen = watch._others\n"
        "print(json.dumps([seen, real(child.pid)['VmRSS']]))\n"
        "child.communicate(b'x')"
    )
    assert seen == held


def test_watching_at_rest_looks_seldom_and_at_other_processes_more_seldom():
    """What a look costs is a clock's matter: `busy_seconds`, 0.01 of a core where it was tried."""
    asked, around, seconds = in_fresh_process(
        "counted, others = [], module.others_bytes\n"
        "module.others_bytes = lambda *words: counted.append(1) or others(*words)\n"
        "began = time.monotonic()\n"
        "watch = Watch(10**9).start(); looks(60); watch.stop()\n"
        "print(json.dumps([asked, len(counted), time.monotonic() - began]))"
    )
    assert min(asked[1:]) >= 0.02
    assert around <= seconds / 0.5 + 2


def test_a_history_of_a_night_stays_small_and_keeps_every_peak():
    history, peak = History(), 0
    for tick in range(10 * 3600 * 10):
        held = 10**9 if tick == 200_001 else 10**6 + tick % 7
        peak = max(peak, held)
        history.add(tick / 10, held, held // 2)
    taken = history.take(True)
    assert len(taken["seconds"]) < 6000
    assert max(taken["held_bytes"]) == peak
    assert history.take(True) == {}


def test_what_was_taken_is_not_taken_again_and_the_open_stretch_stays():
    history = History()
    history.add(0.0, 5, 1)
    history.add(0.2, 6, 1)
    assert history.take(False)["held_bytes"] == [5]
    history.add(0.25, 9, 1)
    assert history.take(True)["held_bytes"] == [9]


class FilePages:
    """Weights in a file, mapped; stands for `MappedWeights` without an engine."""

    def __init__(self, path, size):
        path.write_bytes(os.urandom(1000) * (size // 1000))
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes = size
        self.kept = []

    def release(self, keep_bytes=0):
        self.kept.append(keep_bytes)
        self._map.madvise(mmap.MADV_DONTNEED, -(-keep_bytes // 4096) * 4096)

    def resident_bytes(self):
        return None

    def read(self):
        return sum(self._map[::4096])


def test_mapped_weights_are_released_before_the_cap_is_reached(tmp_path):
    before = Watch(None)
    resident, *_ = before._count()
    before.stop()
    pages = FilePages(tmp_path / "weights", 200 * MEGABYTE)
    watch = Watch(resident + 120 * MEGABYTE)
    watch.adopt(pages)
    watch.start()
    sums = set()
    for _ in range(3):
        for part in range(0, pages.bytes, 10 * MEGABYTE):
            sums.add((part, sum(pages._map[part : part + 10 * MEGABYTE : 4096])))
            look_again(watch)
    records = watch.drain(0, last=True)
    watch.stop()
    assert len(sums) == 20  # the same bytes in every pass
    assert len(pages.kept) >= 2
    assert pages.kept == sorted(pages.kept, reverse=True)  # the head that stays only shrinks
    assert watch.released_bytes > 100 * MEGABYTE
    assert max(records[-1]["held_bytes"]) < resident + 120 * MEGABYTE
    assert "weights are released" in records[0]["text"]
    assert not watch.wants_less


def test_it_asks_for_less_when_nothing_can_be_released():
    watch = Watch(None)
    resident, *_ = watch._count()
    # more than malloc keeps for itself (32 MiB), so that these pages are new whatever ran before
    ballast = bytearray(64 * MEGABYTE)
    watch.enforce(resident + len(ballast) + 5 * MEGABYTE)
    assert watch.wants_less
    watch.stop()


@pytest.mark.parametrize(("available_kb", "short"), [(8_000_000, False), (20_000, True)])
def test_a_machine_that_runs_short_is_noticed(tmp_path, available_kb, short):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 16000000 kB\nMemAvailable: {available_kb} kB\nHugeTLB: 0\n")
    watch = Watch(10**12, meminfo=meminfo).start()
    look_again(watch)
    watch.stop()
    assert bool(watch.short) == short
    assert not short or "20.5 MB of memory left" in watch.short


def test_more_is_kept_free_while_libraries_load():
    before, during, after = in_fresh_process(
        "watch = Watch(None); watch.count_idle(); watch.enforce(100_000_000, wall=True)\n"
        "limits = [limit()]\n"
        "with watch.loading(): limits.append(limit())\n"
        "watch._look(); limits.append(limit())\n"
        "watch.stop(); print(json.dumps(limits))"
    )
    assert before - during > 4 * MEGABYTE
    assert abs(after - before) < MEGABYTE


def test_room_is_kept_for_weights_that_are_about_to_be_mapped():
    before, during, after = in_fresh_process(
        "watch = Watch(None); watch.count_idle(); watch.enforce(100_000_000, wall=True)\n"
        "limits = [limit()]\n"
        "watch.expect(12_000_000); limits.append(limit())\n"
        "watch.adopt(None); watch._look(); limits.append(limit())\n"
        "watch.stop(); print(json.dumps(limits))"
    )
    assert before - during == pytest.approx(12 * MEGABYTE, abs=MEGABYTE)
    assert after == pytest.approx(before, abs=MEGABYTE)


def test_the_history_has_what_is_held_on_gpus_where_one_is_used():
    history = History()
    history.add(0.0, 5, 1, 7)
    history.add(0.05, 6, 1, 3)
    assert history.take(True)["gpu_bytes"] == [7]
    plain = History()
    plain.add(0.0, 5, 1)
    assert "gpu_bytes" not in plain.take(True)


def test_the_wall_moves_with_what_the_limit_does_not_count(tmp_path):
    """Weights mapped read-only are not charged, so the data limit leaves them room."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(60 * MEGABYTE))
    limits = in_fresh_process(
        "watch = Watch(None); watch.count_idle(); watch.enforce(200_000_000, wall=True)\n"
        "watch.start()\n"
        "before = limit()\n"
        f"file = open({str(path)!r}, 'rb')\n"
        "m = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ); sum(m[::4096])\n"
        "looks(2); after = limit()\n"
        "try: bytearray(200_000_000); caught = 0\n"
        "except MemoryError: caught = 1\n"
        "watch.stop(); print(json.dumps([before, after, caught]))"
    )
    before, after, caught = limits
    assert 150 * MEGABYTE < before < 200 * MEGABYTE
    assert 55 * MEGABYTE < before - after < 65 * MEGABYTE
    assert caught
