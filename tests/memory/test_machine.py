"""The smallest limit of the groups above is the machine: memory, cores, what is left."""

import os

import pytest
from cgroup_trees import HYBRID_V2, V1, V1_CPU, V2, make_root

from edge_train.memory import machine

MEGABYTE = 10**6
NONE_V1 = "9223372036854771712\n"
OURS = f"edge-train-{os.getppid()}"  # as a worker sees the group that its parent made

# promise: mounts, our groups, folders with their files, the memory that there is
MEMORY = {
    "v1: the group's own limit": (
        [V1],
        "4:memory:/box\n",
        {"memory/box": {"memory.limit_in_bytes": "350000000\n"}},
        350,
    ),
    "v1: one set on memory and swap": (
        [V1],
        "4:memory:/box\n",
        {
            "memory/box": {
                "memory.limit_in_bytes": NONE_V1,
                "memory.memsw.limit_in_bytes": "300000000",
            }
        },
        300,
    ),
    "v1: a group above that has less": (
        [V1],
        "4:memory:/pod/box\n",
        {
            "memory/pod/box": {"memory.limit_in_bytes": "900000000\n"},
            "memory/pod": {"memory.limit_in_bytes": "450000000\n"},
        },
        450,
    ),
    "v1: a group above that cannot be seen, in the statistics of ours": (
        [V1],
        "4:memory:/docker/0123\n",
        {
            "memory": {
                "memory.limit_in_bytes": NONE_V1,
                "memory.stat": "cache 0\nhierarchical_memory_limit 450000000\n",
            }
        },
        450,
    ),
    "v2: the limit, through a namespace that shows only the root": (
        [V2],
        "0::/\n",
        {"": {"memory.max": "512000000\n", "memory.high": "max\n"}},
        512,
    ),
    "v2: a limit from which on the kernel slows us down": (
        [V2],
        "0::/box\n",
        {"box": {"memory.max": "900000000\n", "memory.high": "800000000\n"}},
        800,
    ),
    "v2: the smallest on the way up": (
        [V2],
        "0::/slice/pod/box\n",
        {
            "slice/pod/box": {"memory.max": "max\n"},
            "slice/pod": {"memory.max": "600000000\n"},
            "slice": {"memory.max": "700000000\n"},
        },
        600,
    ),
    "v2: a path outside of our namespace is not followed": (
        [V2],
        "0::/../other\n",
        {"": {"memory.max": "600000000\n"}, "../other": {"memory.max": "1000000\n"}},
        600,
    ),
    "hybrid: memory is where its controller is": (
        [V1, HYBRID_V2],
        "4:memory:/box\n0::/user\n",
        {"memory/box": {"memory.limit_in_bytes": "350000000\n"}, "unified/user": {}},
        350,
    ),
    "our own group is nobody's limit": (
        [V1],
        f"4:memory:/box/{OURS}\n",
        {
            f"memory/box/{OURS}": {
                "memory.limit_in_bytes": "100000000\n",
                "memory.stat": "hierarchical_memory_limit 100000000\n",
            },
            "memory/box": {"memory.limit_in_bytes": "450000000\n"},
        },
        450,
    ),
    "nor is our own scope": (
        [V2],
        f"0::/system.slice/{OURS}.scope\n",
        {f"system.slice/{OURS}.scope": {"memory.max": "100000000\n"}},
        None,
    ),
    "another run's group is a limit like any other": (
        [V2],
        "0::/edge-train-1234567\n",
        {"edge-train-1234567": {"memory.max": "100000000\n"}},
        100,
    ),
    "a limit above the machine is none": (
        [V2],
        "0::/box\n",
        {"box": {"memory.max": "900000000000000\n"}},
        None,
    ),
    "absurd numbers are none": (
        [V2],
        "0::/a/b/c/d\n",
        {
            "a": {"memory.max": "-1\n"},
            "a/b": {"memory.max": "0\n"},
            "a/b/c": {"memory.max": "\n", "memory.high": "lots\n"},
            "a/b/c/d": {"memory.max": f"{10**30}\n"},
        },
        None,
    ),
    "no group files at all": ([V2], "0::/box\n", {}, None),
    "lines that nobody knows": ([V2, "x", ""], "nonsense\n\n0::/\n", {}, None),
}


def root_of(tmp_path, mounts, membership, folders, **options):
    place = tmp_path / "root"
    place.mkdir()
    named = {f"sys/fs/cgroup/{folder}": files for folder, files in folders.items()}
    return make_root(place, mounts, membership, named, **options)


@pytest.mark.parametrize("promise", MEMORY)
def test_the_smallest_memory_limit_above_is_the_machine(promise, tmp_path):
    *tree, megabytes = MEMORY[promise]
    root = root_of(tmp_path, *tree)
    limit = machine.memory_limit(root)
    if megabytes is None:
        assert limit is None
        assert machine.machine_bytes(root) == 8_000_000 * 1024
    else:
        assert limit.bytes == machine.machine_bytes(root) == megabytes * MEGABYTE
        assert limit.room_bytes < limit.bytes
        assert f"this container has {megabytes} MB" in limit.words()


def test_an_unreadable_limit_leaves_the_others(tmp_path):
    folders = {"pod/box": {}, "pod": {"memory.max": "600000000\n"}}
    root = root_of(tmp_path, [V2], "0::/pod/box\n", folders)
    (root / "sys/fs/cgroup/pod/box/memory.max").mkdir()  # reading fails, as without the right to
    assert machine.machine_bytes(root) == 600 * MEGABYTE


def test_without_proc_nothing_is_known(tmp_path):
    assert machine.memory_limit(tmp_path) is None
    assert machine.machine_bytes(tmp_path) is None
    assert machine.cpu_quota(tmp_path) is None


# promise: mounts, our groups, folders, the quota in cores
QUOTAS = {
    "v1": (
        [V1_CPU],
        "1:cpu,cpuacct:/box\n",
        {"cpu/box": {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}},
        1.5,
    ),
    "v1 without a limit": (
        [V1_CPU],
        "1:cpu,cpuacct:/box\n",
        {"cpu/box": {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}},
        None,
    ),
    "v2, the smallest on the way up": (
        [V2],
        "0::/pod/box\n",
        {"pod/box": {"cpu.max": "max 100000\n"}, "pod": {"cpu.max": "50000 100000\n"}},
        0.5,
    ),
    "v2, absurd": (
        [V2],
        "0::/a/b\n",
        {"a": {"cpu.max": "100000\n"}, "a/b": {"cpu.max": "100000 0\n"}},
        None,
    ),
}


@pytest.mark.parametrize("promise", QUOTAS)
def test_cores_that_a_quota_does_not_give_are_not_there(promise, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    *tree, quota = QUOTAS[promise]
    root = root_of(tmp_path, *tree)
    assert machine.cpu_quota(root) == quota
    assert machine.cores(root) == (16 if quota is None else 1)


def test_a_quota_is_no_more_than_the_cores_we_may_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    root = root_of(tmp_path, [V2], "0::/\n", {"": {"cpu.max": "400000 100000\n"}})
    assert machine.cores(root) == 2


@pytest.mark.parametrize(
    ("mount", "membership", "folder", "used", "cache"),
    [
        (V2, "0::/\n", "", "memory.current", "inactive_file"),
        (V1, "4:memory:/\n", "memory", "memory.usage_in_bytes", "total_active_file"),
    ],
)
def test_a_container_is_short_when_all_but_its_cache_is_used(
    mount, membership, folder, used, cache, tmp_path
):
    name = "memory.max" if mount == V2 else "memory.limit_in_bytes"
    files = {name: "400000000\n", used: "395000000\n", "memory.stat": f"{cache} 100000000\n"}
    root = root_of(tmp_path, [mount], membership, {folder: files})
    limits, meminfo = machine.memory_limits(root), root / "proc/meminfo"
    assert limits[0].left_bytes() == 105 * MEGABYTE
    assert machine.machine_shortage(meminfo, limits) == ""
    (root / f"sys/fs/cgroup/{folder}/memory.stat").write_text(f"{cache} 1000000\n")
    assert "this container has only 6 MB left of its 400 MB" in machine.machine_shortage(
        meminfo, limits
    )


def test_a_limit_whose_use_is_not_known_is_no_shortage(tmp_path):
    root = root_of(tmp_path, [V2], "0::/\n", {"": {"memory.max": "400000000\n"}})
    assert machine.machine_shortage(root / "proc/meminfo", machine.memory_limits(root)) == ""
