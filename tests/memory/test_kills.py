"""A kill is told by who counted it: at our cap, at a container's limit, or of the machine."""

import os
import signal

import pytest
from cgroup_trees import V1, V2, make_root

from edge_train.memory import supervisor, wall
from edge_train.memory.kills import AT_OUR_LIMIT, Kills
from edge_train.memory.link import OUT_OF_MEMORY, Facts
from edge_train.memory.machine import Limit, memory_limit

BOX = 350_000_000


@pytest.fixture
def tree(tmp_path):
    """Return a function that makes a container of a kind with our group in it, and both."""

    def make(kind):
        mount, membership, base, limit = {
            "cgroup v2": (V2, "0::/box\n", "sys/fs/cgroup/box", "memory.max"),
            "cgroup v1": (
                V1,
                "4:memory:/box\n",
                "sys/fs/cgroup/memory/box",
                "memory.limit_in_bytes",
            ),
        }[kind]
        own = f"{base}/edge-train-{os.getpid()}"
        root = make_root(tmp_path, [mount], membership, {base: {limit: f"{BOX}\n"}, own: {}})
        return root, root / base, wall.Group(kind, root / own)

    return make


def write(folder, kind, kills, reached):
    """Write counts as the kernel does: of version 2 those of groups below are in, too."""
    if kind == "cgroup v2":
        (folder / "memory.events").write_text(f"oom 9\noom_kill {kills}\n")
        (folder / "memory.events.local").write_text(f"max 5\noom {reached}\noom_kill 0\n")
    else:
        (folder / "memory.oom_control").write_text(f"oom_kill_disable 0\noom_kill {kills}\n")
        (folder / "memory.failcnt").write_text(f"{reached}\n")


@pytest.mark.parametrize("kind", ["cgroup v1", "cgroup v2"])
def test_the_limit_that_was_reached_is_named_not_the_one_where_the_kill_was_counted(kind, tree):
    root, box, group = tree(kind)
    write(group.folder, kind, 1, 4)
    limit = memory_limit(root)
    kills = Kills(group, limit, root)
    assert kills.since() == ""
    write(group.folder, kind, 2, 5)
    assert kills.since() == AT_OUR_LIMIT
    write(group.folder, kind, 2, 4)
    assert "limit of this container, 350 MB" in kills.since()
    assert str(box) in kills.since()
    assert "machine ran out of memory" in _since(Kills(group, None, root), group, kind)


def _since(kills, group, kind):
    write(group.folder, kind, 3, 4)
    return kills.since()


@pytest.mark.parametrize("kind", ["cgroup v1", "cgroup v2"])
def test_without_a_group_of_ours_the_container_counts(kind, tree):
    root, box, _ = tree(kind)
    write(box, kind, 7, 1)
    kills = Kills(None, memory_limit(root), root)
    assert kills.since() == ""
    write(box, kind, 8, 2)
    assert "limit of this container" in kills.since()


# ---- what is said ---------------------------------------------------------------------------


def ended(monkeypatch, cap_bytes, killed, facts, status=-signal.SIGKILL):
    monkeypatch.setattr(supervisor, "_worker", lambda *_: (status, (), facts))
    monkeypatch.setattr(Kills, "since", lambda self: killed)
    limit = Limit(BOX, "cgroup v1", wall.Path("/box"))
    return supervisor._attempts(["run"], cap_bytes, True, None, (), limit)


def test_a_kill_by_the_container_is_not_answered_with_a_larger_cap(monkeypatch, capsys):
    killed = "the kernel ended it at the limit of this container, 350 MB (/box)"
    assert ended(monkeypatch, 200_000_000, killed, Facts(loaded=True)) == 2
    said = capsys.readouterr().err
    assert "limit of this container, 350 MB" in said
    assert "Try --mem" not in said
    assert "start it with more memory" in said
    folder = Facts(loaded=True, started=True, folder="runs/bag")
    assert ended(monkeypatch, 200_000_000, killed, folder) == 3
    said = capsys.readouterr().err
    assert "Try --mem" not in said
    assert "run --resume runs/bag" in said


def test_no_cap_is_advised_that_the_container_cannot_give(monkeypatch, capsys):
    room = Limit(BOX, "cgroup v1", wall.Path("/box")).room_bytes
    facts = Facts(
        loaded=True, planned=True, shortage="weights did not fit", needs_bytes=500_000_000
    )
    assert ended(monkeypatch, room, "", facts, OUT_OF_MEMORY) == 2
    said = capsys.readouterr().err
    assert "plan needs 500 MB" in said
    assert "this container has 350 MB" in said
    assert "start it with 640MB of memory or more, and --mem 600MB" in said


def test_inside_the_container_a_larger_cap_that_it_has_is_still_advised(monkeypatch, capsys):
    facts = Facts(
        loaded=True, planned=True, shortage="weights did not fit", needs_bytes=250_000_000
    )
    assert ended(monkeypatch, 200_000_000, "", facts, OUT_OF_MEMORY) == 2
    assert "Try --mem 300MB" in capsys.readouterr().err


def test_a_cap_that_was_only_planned_is_advised_with_the_room_that_a_plan_lacks(
    monkeypatch, capsys
):
    """`tiny-sd backprop int8 32 1 a call`: 459 MB planned, 506 MB too few, 560 MB enough."""
    facts = Facts(loaded=True, shortage="plan needs 459 MB", needs_bytes=459_000_000)
    assert ended(monkeypatch, 300_000_000, "", facts, OUT_OF_MEMORY) == 2
    said = capsys.readouterr().err
    assert "plan needs 459 MB, cap is 300 MB" in said
    assert "and --mem 560MB" in said


@pytest.mark.process
def test_a_real_container_ends_a_worker_and_is_named():
    """Our group inside of a smaller one, and a process that outgrows the latter."""
    box = wall.make_group(60_000_000, prefix="test-container-")
    if box is None or box.folder is None:
        pytest.skip("no memory cgroup can be made here")
    own = wall.Group(box.kind, box.folder / f"edge-train-{os.getpid()}")
    try:
        if box.kind == "cgroup v2":
            (box.folder / "cgroup.subtree_control").write_text("+memory")
        own.folder.mkdir()
        kills = Kills(own, Limit(60_000_000, box.kind, box.folder))
        pid = os.fork()
        if pid == 0:
            own.join()
            bytearray(120_000_000)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        assert "limit of this container, 60 MB" in kills.since()
    finally:
        own.remove()
        box.remove()
