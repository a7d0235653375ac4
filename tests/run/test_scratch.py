"""Folders among the temporary files: what a killed process left goes, what is in use stays."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_train.errors import InputError
from edge_train.run import scratch as place
from edge_train.run.scratch import BENCH, REHEARSAL, in_use, scratch, sweep

_HOLDER = """
import sys
from edge_train.run.scratch import scratch
with scratch() as folder:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "a").write_text("a")
    print(folder, flush=True)
    sys.stdin.read()
"""
_locks = pytest.mark.skipif(not place.HAS_LOCKS, reason="no locks on this system")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of temporary files, an empty one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder(temporary: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """Return a folder and the other process that works in it."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip()), process
        process.kill()


def _age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


def test_a_folder_is_gone_afterwards(temporary: Path) -> None:
    with scratch() as folder:
        (folder / "file").write_text("a")
        assert folder.parent == temporary
    assert not list(temporary.iterdir())


@_locks
def test_what_a_killed_process_left_is_swept_and_what_another_works_in_is_not(
    temporary: Path, holder: tuple[Path, "subprocess.Popen[str]"]
) -> None:
    folder, process = holder
    _age(folder, 1e6)  # a long one is in use all the same
    with scratch():
        assert (folder / "checkpoints" / "a").is_file()
    process.kill()
    process.wait()
    with scratch() as own:
        assert list(temporary.iterdir()) == [own]


@_locks
def test_a_folder_is_in_use_as_long_as_any_of_two_processes_works_in_it(
    holder: tuple[Path, "subprocess.Popen[str]"],
) -> None:
    folder, process = holder
    with in_use(folder):
        process.kill()
        process.wait()
        sweep()
        assert (folder / "checkpoints" / "a").is_file()
    sweep()
    assert not folder.exists()


@pytest.mark.parametrize("prefix", [REHEARSAL, BENCH])
def test_folders_without_a_lock_are_swept_when_nothing_was_written_for_a_day(
    temporary: Path, prefix: str
) -> None:
    old, written, new = (temporary / f"{prefix}{name}" for name in ("old", "written", "new"))
    for folder in (old, written, new):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "a").write_text("a")
    for folder in (old, written):
        _age(folder, 1e6)
    (written / "checkpoints" / "a").write_text("b")  # changes no folder's time
    sweep()
    assert sorted(path.name for path in temporary.iterdir()) == sorted([written.name, new.name])


def test_nothing_but_folders_of_that_name_is_swept(tmp_path: Path, temporary: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").write_text("a")
    (temporary / f"{REHEARSAL}link").symlink_to(target)
    (temporary / f"{REHEARSAL}file").write_text("a")
    (temporary / "edge-train").mkdir()
    before = sorted(temporary.rglob("*"))
    for path in before:
        os.utime(path, (0, 0), follow_symlinks=False)
    sweep()
    assert sorted(temporary.rglob("*")) == before


@_locks
def test_a_folder_of_another_user_is_left_alone(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = temporary / f"{REHEARSAL}theirs"
    folder.mkdir()
    _age(folder, 1e6)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    sweep()
    assert folder.is_dir()


def test_a_place_without_locks_is_no_reason_to_stop(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    if place.HAS_LOCKS:
        monkeypatch.setattr(place.fcntl, "flock", none)
    with scratch() as folder:
        sweep()
        assert folder.is_dir()
    assert not list(temporary.iterdir())


def test_no_place_for_temporary_files_is_a_sentence(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    with pytest.raises(InputError, match="TMPDIR"), scratch():
        pass
    sweep()
    shutil.rmtree(temporary / "gone", ignore_errors=True)
