"""Ctrl-C and a polite kill do the same at every instant, and leave nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from places import SUPPORT
from running import records_of

from edge_train.memory import supervisor
from edge_train.memory.link import ENDED_AT_ONCE

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="signals and the wall are those of Linux"),
]

NETWORK = ["--task", "network", "--data", "table.csv", "--network", "mlp 4", "--samples", "10"]
RUN = ["run", *NETWORK, "--steps", "3", "--out", "deep/r"]
CAPPED, NEAR = [*RUN, "--mem", "300MB"], [*RUN, "--mem", "100MB"]
# where calls are counted, what is typed
WAYS = {
    "alone": ("command", RUN),
    "parent": ("command", NEAR),
    "worker": ("worker", CAPPED),
    "rehearsal": ("worker", NEAR),
    "rehearsed": ("fresh", NEAR),
}
INT, TERM = NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    lines = [f"{n % 7},{-n % 5},{'yes' if n % 7 > 3 else 'no'}" for n in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return tmp_path


def interrupted(place, call, number, words):
    """Run a command that is interrupted at an instant; nothing of it may run when it has ended."""
    command = [sys.executable, SUPPORT / "interrupting.py", place, call, int(number), *words]
    process = subprocess.Popen(
        list(map(str, command)), stdout=-1, stderr=-1, text=True, start_new_session=True
    )
    out, err = process.communicate()
    assert not [path for path in Path("/proc").glob("[0-9]*") if session_of(path) == process.pid]
    assert not Path("/sys/fs/cgroup/memory", f"edge-train-{process.pid}").exists()
    assert not [*Path("temporary").iterdir()]
    return process.returncode, out, err


def session_of(path):
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return None


def calls_of(place, words):
    status, _, err = interrupted(place, 0, 0, words)
    assert status == 0, err
    return int(Path("calls").read_text())


def check(at, status, err):
    """Hold an ending to what is promised of all of them; return which one it was."""
    said = err.splitlines()
    assert "Traceback" not in err and "Exception" not in err, (at, err)
    began = bool(records_of(Path("deep/r")))
    if status == 0:  # too late: the work was done
        assert "interrupted" not in err, (at, err)
        return "done"
    assert status == 130, (at, status, err)
    if not began:
        assert not Path("deep").exists(), (at, sorted(Path("deep").rglob("*")))
    saved = began and records_of(Path("deep/r"))[-1]["kind"] == "end"
    words = said.count("edge-train: interrupted.")
    # what is said once it trains is the observer's; a bar may share a line with the word
    assert (words == 1 and said[-1] == "edge-train: interrupted.") or saved, (at, err)
    assert words <= 1, (at, err)
    assert not list(Path("deep").rglob("*.partial")), at
    return "saved" if saved else "at once"


@pytest.mark.parametrize(
    ("way", "call", "number", "ending"),
    [
        ("alone", "read", TERM, "at once"),
        ("alone", "prepare", INT, "at once"),
        ("alone", "finish_run", TERM, "at once"),
        ("worker", "prepare", TERM, "at once"),
        ("worker", "fit", INT, "saved"),
        ("worker", "finish_run", INT, "at once"),
        ("rehearsal", "start_record", TERM, "at once"),
        ("rehearsal", "_again", INT, "at once"),
    ],
)
def test_interrupted_before_while_and_after_it_trains(folder, way, call, number, ending):
    place, words = WAYS[way]
    status, _, err = interrupted(place, call, number, words)
    assert status == 130, err
    assert check((way, call), status, err) == ending
    assert Path("deep").exists() == (call in ("fit", "finish_run"))


def test_a_plan_takes_its_rehearsal_with_it(folder):
    status, _, err = interrupted("command", "communicate", TERM, ["plan", *NETWORK])
    assert (status, err) == (130, "edge-train: interrupted.\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_ignored_before_it_began_a_signal_stops_it_all_the_same(folder, number):
    """As for the first process of a container, which the kernel ends by none without a handler."""
    command = [sys.executable, SUPPORT / "interrupting.py", "command", "examine", str(int(number))]
    done = subprocess.run(
        [*command, "doctor"],
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "edge-train: interrupted.\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_sent_to_the_worker_alone_before_it_can_answer_it_ends_without_a_word(folder, number):
    """Its parent says it; the signal waits until the worker's interpreter is there."""
    words = {"supervisor": os.getpid(), "pipe": 1, "cap_bytes": None, "stack": [-1, -1]}
    command = [sys.executable, *supervisor._WORKER, json.dumps(words), "doctor"]

    def interrupted_already():
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        os.kill(os.getpid(), number)

    done = subprocess.run(
        command, preexec_fn=interrupted_already, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (ENDED_AT_ONCE, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_both_signals_do_the_same_at_every_instant(folder, way):
    """Half of the instants are spread over all calls, half over the last ones, where it trains."""
    place, words = WAYS[way]
    count = calls_of(place, words)
    shutil.rmtree("deep")
    parts = int(os.environ.get("INSTANTS", "40")) // 2
    late = count - count // 20
    instants = [
        *(1 + part * count // parts for part in range(parts)),
        *(late + part * (count - late) // parts for part in range(parts)),
    ]
    ends = []
    for at in instants:
        for number in NUMBERS:
            status, _, err = interrupted(place, at, number, words)
            ends.append(check((at, number), status, err))
            shutil.rmtree("deep", ignore_errors=True)
    print(way, count, {ending: ends.count(ending) for ending in set(ends)})
    if way in ("alone", "worker", "rehearsed"):
        assert {"at once", "saved"} <= set(ends)  # else no instant was one of training


def test_a_later_run_sweeps_what_a_rehearsal_left_whose_whole_tree_was_killed(folder):
    command = [sys.executable, "-m", "edge_train"]
    process = subprocess.Popen([*command, *NEAR], stderr=-3, stdout=-3, start_new_session=True)
    while not [*Path("temporary").glob("*/in-use")]:
        assert process.poll() is None, "it ended before it rehearsed"
    for path in [path for path in Path("/proc").glob("[0-9]*") if session_of(path) == process.pid]:
        os.kill(int(path.name), signal.SIGKILL)
    process.wait()
    assert [*Path("temporary").iterdir()]
    done = subprocess.run([*command, *CAPPED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [*Path("temporary").iterdir()]


def test_while_its_first_modules_are_loaded_it_ends_without_a_traceback():
    code = """
import os, runpy, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "edge_train.errors":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.path.insert(0, "")  # what -m puts there is taken away
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[1:] = ["doctor"]
runpy.run_module("edge_train", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-INT, "", "")
