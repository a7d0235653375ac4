"""Windows and macOS, as far as Linux can play them: it runs with the guard alone and says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

# What is missing there, taken away before the first module of ours; the standard library and
# engines, which look at the platform too, are loaded as what they are.
PLAYED = """
import concurrent.futures, ctypes, multiprocessing, os, platform, signal, subprocess, sys
import contextlib, importlib.metadata, tempfile, tokenizers, numpy, PIL.Image
for engine in ("onnxruntime", "torch"):
    with contextlib.suppress(ImportError):
        importlib.import_module(engine)
sys.modules["resource"] = sys.modules["fcntl"] = None
for module, names in (
    (os, ("fork", "sched_getaffinity", "sysconf", "killpg", "setpgid", "uname", "O_NOFOLLOW")),
    (signal, ("pthread_sigmask", "sigwait", "SIGCHLD", "SIGHUP", "SIGQUIT", "SIGTSTP")),
):
    for name in names:
        delattr(module, name)
sys.platform = {platform!r}
from edge_train.entry import main
sys.exit(main())
"""
NETWORK = ("--task", "network", "--network", "mlp 4", "--samples", "10", "--mem", "300MB")


def played(platform, *words, status=0):
    done = subprocess.run(
        [sys.executable, "-c", PLAYED.format(platform=platform), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture
def words(tmp_path):
    lines = [f"{n % 7},{-n % 5},{'yes' if n % 7 > 3 else 'no'}" for n in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")
    return (*NETWORK, "--data", tmp_path / "table.csv")


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_without_limits_fork_or_locks_it_runs_with_the_guard_alone_and_says_so(
    words, tmp_path, platform
):
    assert "Train on the device" in played(platform, "--help")
    assert "wall: none on this system" in played(platform, "doctor")
    out = tmp_path / "r"
    played(platform, "run", *words, "--steps", "2", "--out", out)
    report = json.loads(Path(out, "report.json").read_text())
    assert (report["status"], report["wall"]) == ("done", "none")


@pytest.mark.slow  # it rehearses every way to run
def test_a_plan_says_that_the_guard_alone_keeps_the_cap(words):
    assert "wall: none on this system" in played("win32", "plan", *words)


def test_a_page_of_runs_is_refused_in_one_sentence_on_windows(words, tmp_path):
    out = tmp_path / "r"
    for command in (("watch", tmp_path), ("run", *words, "--out", out, "--watch")):
        said = played("win32", *command, status=2)
        assert "need Linux or macOS, this is Windows" in said
        assert "Traceback" not in said
    assert not out.exists()
