"""The kernel's lock decides who writes to a run folder; what its file says is only words."""

import errno
import json
import os

import pytest

from edge_train.errors import RunFolderError
from edge_train.records import lock

fcntl = pytest.importorskip("fcntl")


def held(folder, words):
    """Take the lock as another process would, which says `words`."""
    file = open(folder / "lock", "w")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(words)
    file.flush()
    return file


def said_by(folder, **words):
    own = {"pid": os.getpid(), "host": os.uname().nodename, "boot": lock._boot()}
    return refusal(folder, json.dumps({**own, **words}))


def refusal(folder, words):
    with (
        held(folder, words),
        pytest.raises(RunFolderError) as refused,
        lock.only_writer(folder, print),
    ):
        pass
    return str(refused.value)


def test_the_second_is_told_the_pid_of_the_first(tmp_path):
    assert f"a process (pid {os.getpid()}) is training in {tmp_path}" in said_by(tmp_path)


def test_a_pid_of_another_machine_or_boot_is_not_believed(tmp_path):
    for other in ({"host": "attic"}, {"boot": "of last week"}):
        text = said_by(tmp_path, **other)
        assert "a process of another machine" in text and f"pid {os.getpid()}" not in text


def test_words_that_no_holder_wrote_are_not_believed(tmp_path):
    for pid in (2**22 + 1, 2**70, "me", None, [1]):
        assert said_by(tmp_path, pid=pid).startswith("another process is training in")
    for words in ("", "[]", "\0\0", "[" * 5000):
        assert refusal(tmp_path, words).startswith("another process is training in")


def test_a_file_left_by_a_process_that_is_gone_holds_nobody_up(tmp_path):
    (tmp_path / "lock").write_text(json.dumps({"pid": os.getpid(), "host": "h", "boot": "b"}))
    with lock.only_writer(tmp_path, print):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    with lock.only_writer(tmp_path, print):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_no_reason_to_stop(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    said = []
    with lock.only_writer(tmp_path, said.append):
        pass
    assert len(said) == 1 and said[0].startswith("no locks here")


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_something_else_in_the_place_of_the_lock_is_one_sentence_or_nothing(tmp_path, kind):
    path = tmp_path / "lock"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/dev/null")
    else:
        os.mkfifo(path)
    try:
        with lock.only_writer(tmp_path, print):
            assert kind == "pipe"  # which is locked like a file
    except RunFolderError as error:
        assert "cannot be written" in str(error)


def test_what_a_killed_process_did_not_finish_is_swept_from_every_folder_of_a_run(tmp_path):
    left = [
        folder / ".model.safetensors.4711.partial"
        for folder in (tmp_path, tmp_path / "checkpoints", tmp_path / "model")
    ]
    kept = tmp_path / "model" / "model.safetensors"
    for path in (*left, kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with lock.only_writer(tmp_path, print):
        assert not any(path.exists() for path in left)
        assert kept.exists()
