"""The wall is what the operating system offers: a data limit, and a memory group if it may."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from cgroup_trees import V1, V2, make_root
from emulated import natively
from running import STALLED_SECONDS

from edge_train.memory import wall

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


def in_fresh_process(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=STALLED_SECONDS,
        check=False,
    )


@linux
@natively
def test_an_allocation_past_the_data_limit_fails_and_can_be_caught():
    done = in_fresh_process(
        "from edge_train.memory.wall import limit_data\n"
        "assert limit_data(60_000_000)\n"
        "small = bytearray(20_000_000)\n"
        "try: bytearray(100_000_000)\n"
        "except MemoryError: print('caught')\n"
    )
    assert done.stdout == "caught\n", done.stderr


@linux
@natively
def test_what_strangers_wrote_has_so_much_room_and_no_more_and_then_all_is_as_before():
    done = in_fresh_process(
        "from edge_train.memory.wall import limit_data\n"
        "from edge_train.process.room import room_for\n"
        "def caught():\n"
        "    try: bytearray(100_000_000)\n"
        "    except MemoryError: return True\n"
        "with room_for(50_000_000): small, first = bytearray(20_000_000), caught()\n"
        "print(first, caught())\n"
        "limit_data(60_000_000)\n"
        "with room_for(500_000_000): print(caught())\n"  # the cap stays as it is
    )
    assert done.stdout == "True None\nTrue\n", done.stderr


@linux
def test_a_read_only_mapping_is_not_charged(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(100_000_000))
    done = in_fresh_process(
        "import mmap\n"
        "from edge_train.memory.wall import limit_data\n"
        "limit_data(30_000_000)\n"
        f"file = open({str(tmp_path / 'weights')!r}, 'rb')\n"
        "m = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "print(sum(m[::4096]))\n"
    )
    assert done.stdout == "0\n", done.stderr


@pytest.fixture
def machine(tmp_path):
    """Return a function that makes a fake root with some cgroup mounts."""
    return partial(make_root, tmp_path)


def no_systemd(words):
    return 1, ""


def test_a_delegated_v2_folder_is_used_with_swap_closed(machine, monkeypatch):
    monkeypatch.setattr(wall, "_can_join", lambda folder: True)
    root = machine(
        [V2],
        "0::/user/app/shell\n",
        {
            "sys/fs/cgroup": {"cgroup.subtree_control": "cpu memory"},
            "sys/fs/cgroup/user/app": {"cgroup.subtree_control": "memory pids"},
            "sys/fs/cgroup/user/app/shell": {"cgroup.subtree_control": ""},
        },
    )
    made = root / f"sys/fs/cgroup/user/app/edge-train-{os.getpid()}"
    real = Path.mkdir

    def mkdir(path, *args, **options):  # the kernel fills a new group with its files
        real(path, *args, **options)
        if path == made:
            (path / "memory.swap.max").write_text("max")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    group = wall.make_group(5_000_000, root=root, run=no_systemd)
    assert (group.kind, group.folder) == ("cgroup v2", made)
    assert (made / "memory.max").read_text() == "5000000"
    assert (made / "memory.swap.max").read_text() == "0"
    (made / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.kills() == 2
    group.join()
    assert (made / "cgroup.procs").read_text() == "0"


def test_v1_is_used_where_v2_has_no_memory_controller(machine, monkeypatch):
    monkeypatch.setattr(wall, "_can_join", lambda folder: True)
    root = machine(
        [V1, "cgroup2 /sys/fs/cgroup/unified cgroup2 rw"],
        "4:memory:/box\n0::/\n",
        {
            "sys/fs/cgroup/memory/box": {"memory.limit_in_bytes": "max"},
            "sys/fs/cgroup/unified": {"cgroup.subtree_control": "hugetlb"},
        },
    )
    group = wall.make_group(7_000_000, root=root, run=no_systemd)
    assert group.kind == "cgroup v1"
    assert (group.folder / "memory.limit_in_bytes").read_text() == "7000000"
    (group.folder / "memory.oom_control").write_text("oom_kill_disable 0\noom_kill 1\n")
    assert group.kills() == 1


def test_a_group_that_cannot_be_joined_is_not_used(machine, monkeypatch):
    monkeypatch.setattr(wall, "_can_join", lambda folder: False)
    files = {"memory.limit_in_bytes": "max"}
    root = machine([V1], "4:memory:/\n", {"sys/fs/cgroup/memory": files})
    assert wall.make_group(7_000_000, root=root, run=no_systemd) is None


def test_systemd_gives_a_scope_where_no_folder_can_be_written(machine):
    root, asked = machine([], "0::/\n", {}), []

    def systemd(words):
        asked.append(list(words))
        return 0, "oom-kill\n"

    group = wall.make_group(9_000_000, root=root, run=systemd)
    assert group.kind == "systemd scope"
    assert {"MemoryMax=9000000", "MemorySwapMax=0"} <= set(group.prefix)
    assert group.prefix[-1] == "--"
    assert group.kills(systemd) == 1
    group.remove(systemd)
    assert asked[-1][-2:] == ["reset-failed", group.unit]


def test_no_group_is_no_reason_to_fail(machine):
    root = machine([], "0::/\n", {})
    assert wall.make_group(10**9, root=root, run=no_systemd) is None
    assert "none that this user may make" in wall.describe(root=root, run=no_systemd)[1]


def real_group(limit_bytes):
    group = wall.make_group(limit_bytes)
    if group is None or group.folder is None:
        pytest.skip("no memory cgroup can be made here")
    return group


@linux
def test_the_kernel_ends_what_outgrows_its_group_and_counts_it():
    group = real_group(50_000_000)
    try:
        pid = os.fork()
        if pid == 0:
            group.join()
            bytearray(100_000_000)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -9
        assert group.kills() == 1
    finally:
        group.remove()
    assert not group.folder.exists()


@linux
def test_cached_file_pages_are_taken_back_instead_of_ending_the_process(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(120_000_000))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # so that the group is charged
    group = real_group(50_000_000)
    code = (
        "import mmap\n"
        f"file = open({str(path)!r}, 'rb')\n"
        "m = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "for _ in range(3): assert sum(m[::4096]) == 0\n"
    )
    try:
        pid = os.fork()
        if pid == 0:
            group.join()
            os.execv(sys.executable, [sys.executable, "-c", code])
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert group.kills() == 0
    finally:
        group.remove()
        os.close(descriptor)


@linux
def test_the_container_of_a_bench_that_was_killed_is_removed_by_the_next():
    """With the group of the run in it: a bench that is killed takes nothing away."""
    own = real_group(50_000_000)
    own.remove()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = own.folder.with_name(f"test-bench-{gone.pid}")
    left.mkdir()
    (left / f"edge-train-{gone.pid}").mkdir()
    again = wall.make_group(50_000_000, prefix="test-bench-")
    try:
        assert again.folder.name == f"test-bench-{os.getpid()}"
        assert not left.exists()
    finally:
        again.remove()


@linux
def test_groups_of_dead_runs_are_removed_by_the_next():
    group = real_group(50_000_000)
    group.remove()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = group.folder.with_name(f"edge-train-{gone.pid}")
    left.mkdir()
    again = real_group(50_000_000)
    again.remove()
    until = time.monotonic() + STALLED_SECONDS
    while left.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not left.exists()
