"""Whatever is planted in the worker, the cap holds, and nothing that was learned is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from places import GOLDEN, SUPPORT
from running import STALLED_SECONDS, Command, records_of, steps_in

pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="the wall is Linux's"),
]

MEGABYTE = 10**6


class Watched(Command):
    """A running `edge-train`, watched from outside a thousand times a second."""

    def __init__(self, *words, out, plant=None, folder=SUPPORT):
        script = (str(folder / "planted.py"), plant) if plant else ("-m", "edge_train")
        super().__init__(*words, out=out, script=script)
        self.peak = 0
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()

    def workers(self):
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(word) for word in path.read_text().split()]
        except OSError:
            return []

    def _sample(self):
        page = os.sysconf("SC_PAGE_SIZE")
        while self.process.poll() is None:
            held = 0
            for pid in (self.process.pid, *self.workers()):
                try:
                    held += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
                except OSError:
                    continue
            self.peak = max(self.peak, held)
            time.sleep(0.001)

    def wait(self):
        status = super().wait()
        self.thread.join()
        return status


@pytest.fixture
def start():
    """Return a function that starts a command, which ends with the test at the latest."""
    with ExitStack() as stack:
        yield lambda *words, **options: stack.enter_context(Watched(*words, **options))


def words(photos, out, *options, steps=12):
    few = ["--steps", steps, "--evaluate-every", steps, "--threads", 1, "--preview-steps", 2]
    return ["run", photos, "--model", GOLDEN, "--class", "dog", "--out", out, *few, *options]


def test_a_run_under_a_cap_is_walled_and_says_by_what(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "200MB"), out=out)
    assert command.wait() == 0, command.err
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "done"
    assert report["wall"].startswith("data limit")
    assert report["measured_peak_bytes"] <= 200 * MEGABYTE
    # the report cannot count the memory that writing it takes
    assert command.peak <= report["measured_peak_bytes"] + 5 * MEGABYTE
    memory = [r for r in records_of(out) if r["kind"] == "memory"]
    held = max(max(r["held_bytes"]) for r in memory)
    assert held <= report["measured_peak_bytes"] + MEGABYTE  # the kernel counts in batches


def test_a_spike_fails_inside_the_worker_and_the_run_stops_resumable(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "200MB"), plant="spike", out=out)
    assert command.wait() == 3
    assert command.peak <= 200 * MEGABYTE
    assert "edge-train run --resume" in command.err
    assert "Traceback" not in command.err
    assert steps_in(out) == 5  # none lost, none taken twice
    rungs = [r["changes"] for r in records_of(out) if r["kind"] == "resume"]
    assert len(rungs) == len({json.dumps(r) for r in rungs}) >= 3  # each once, then it stops
    assert records_of(out)[-1]["status"] == "stopped"
    again = start("run", "--resume", out, out=out)
    assert again.wait() == 0, again.err
    assert steps_in(out) == 12


def test_a_leak_never_breaks_the_cap_and_loses_no_step(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "180MB", steps=400), plant="leak", out=out)
    status = command.wait()
    assert status in (0, 3), command.err
    assert command.peak <= 180 * MEGABYTE
    taken = [r["step"] for r in records_of(out) if r["kind"] == "step"]
    assert taken == list(range(len(taken)))
    assert len(taken) >= 50
    assert any("out of memory" in r.get("text", "") for r in records_of(out))


def test_a_plan_that_lies_costs_a_restart_with_smaller_calls_not_the_run(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "180MB", "--json"), plant="lying_plan", out=out)
    assert command.wait() == 0, command.err
    assert command.peak <= 180 * MEGABYTE
    events = [json.loads(line) for line in command.out.splitlines()]  # it talks as before
    assert any("going on with" in event.get("text", "") for event in events)
    assert "going on with" not in command.err
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "done" and report["steps"] == 12


def test_made_smaller_a_run_stays_so_until_it_gets_another_cap(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(
        *words(photos, out, "--mem", "180MB", steps=100_000), plant="lying_plan", out=out
    )
    command.wait_for_steps(3)
    command.send(signal.SIGINT)
    assert command.wait() == 130, command.err
    assert "going on with at most 8" in command.err or "one sample" in command.err
    for cap, smaller in (("180MB", True), ("400MB", False)):
        again = start("run", "--resume", out, "--mem", cap, out=out)
        again.wait_for_steps(steps_in(out) + 2)
        again.send(signal.SIGINT)
        assert again.wait() == 130, again.err
        resume = [record for record in records_of(out) if record["kind"] == "resume"][-1]
        assert bool(resume["changes"]) == smaller
        assert resume["cap_bytes"] == int(cap[:-2]) * MEGABYTE
    assert json.loads((out / "report.json").read_text())["cap_bytes"] == 400 * MEGABYTE


def test_a_cap_lowered_on_resume_is_planned_again_and_one_too_low_leaves_the_run_whole(
    start, photos, tmp_path
):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "2GB", steps=100_000), out=out)
    command.wait_for_steps(3)
    command.send(signal.SIGINT)
    assert command.wait() == 130, command.err
    assert json.loads((out / "plan.json").read_text())["source"] == "estimate"
    taken = steps_in(out)
    for cap in ("60MB", "90MB"):
        low = start("run", "--resume", out, "--mem", cap, out=out)
        assert low.wait() in (2, 3), low.err
        assert low.peak <= int(cap[:-2]) * MEGABYTE
        (sentence,) = [line for line in low.err.splitlines() if line.startswith("edge-train:")]
        # too little to open the model again, or only too little to plan
        asked = f"{cap[:-2]} MB"
        assert "Try --mem" in sentence
        assert f"cap is {asked}" in sentence or f"the cap of {asked}" in sentence
        assert steps_in(out) == taken
    again = start("run", "--resume", out, "--mem", "170MB", out=out)
    again.wait_for_steps(taken + 2)
    again.send(signal.SIGINT)
    assert again.wait() == 130, again.err
    assert "rehearsing it (170 MB)" in again.err
    assert again.peak <= 170 * MEGABYTE
    plan = json.loads((out / "plan.json").read_text())
    report = json.loads((out / "report.json").read_text())
    assert (plan["source"], plan["cap_bytes"]) == ("rehearsal", 170 * MEGABYTE)
    assert report["cap_bytes"] == 170 * MEGABYTE
    assert report["plan_peak_bytes"] == plan["peak_bytes"]


def test_a_machine_that_runs_short_stops_the_run_with_everything_saved(start, photos, tmp_path):
    shutil.copy(SUPPORT / "planted.py", tmp_path)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    out = tmp_path / "run"
    options = words(photos, out, "--mem", "300MB", steps=100_000)
    command = start(*options, plant="short_machine", folder=tmp_path, out=out)
    command.wait_for_steps(5)
    meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable: 20000 kB\n")
    assert command.wait() == 3
    assert "the machine has only 20.5 MB of memory left" in command.err
    assert records_of(out)[-1]["status"] == "stopped"
    assert list((out / "checkpoints").iterdir())


def is_alive(pid):
    """Return whether a process runs; a dead one that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_worker_dies_with_its_parent(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "300MB", steps=100_000), out=out)
    command.wait_for_steps(3)
    (worker,) = command.workers()
    command.process.kill()
    command.wait()
    until = time.monotonic() + STALLED_SECONDS
    while is_alive(worker) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_alive(worker)


def test_a_killed_worker_is_reported_and_can_be_resumed(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "300MB", steps=100_000), out=out)
    command.wait_for_steps(3)
    os.kill(command.workers()[0], signal.SIGKILL)
    assert command.wait() == 3
    assert "signal 9 (SIGKILL)" in command.err and "--resume" in command.err
    taken = steps_in(out)
    again = start("run", "--resume", out, out=out)
    again.wait_for_steps(taken + 2)
    again.send(signal.SIGINT)
    assert again.wait() == 130, again.err
    steps = [record["step"] for record in records_of(out) if record["kind"] == "step"]
    assert steps == list(range(len(steps)))


def test_interrupted_it_saves_exits_130_and_streams_events_to_the_end(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "300MB", "--json", steps=100_000), out=out)
    command.wait_for_steps(3)
    command.send(signal.SIGINT)
    assert command.wait() == 130
    events = [json.loads(line) for line in command.out.splitlines()]
    assert events[-1]["event"] == "message"
    assert {"event": "ended", "status": "interrupted"} in events
    assert sum(event["event"] == "step" for event in events) >= 3


@pytest.mark.parametrize("cap", ["20MB", "60MB"])
def test_a_cap_below_the_interpreter_is_refused_in_one_sentence(start, photos, tmp_path, cap):
    command = start(*words(photos, tmp_path / "run", "--mem", cap), out=tmp_path / "run")
    assert command.wait() == 2
    (sentence,) = [line for line in command.err.splitlines() if line.startswith("edge-train:")]
    assert (
        f"cap is {cap[:-2]} MB (--mem {cap})" in sentence
        and "Try --mem 140MB (90MB for" in sentence
    )
    assert "plan needs" in sentence and "`edge-train plan --all` lists every line" in sentence
    assert "Traceback" not in command.err
    assert command.peak <= int(cap[:-2]) * MEGABYTE


@pytest.mark.parametrize("words_of_it", ["=0", "=-5GB", " -5GB", "=8bananas", "=1e9", ""])
def test_a_cap_that_is_no_size_is_refused(start, photos, tmp_path, words_of_it):
    command = start(
        *words(photos, tmp_path / "run"), *f"--mem{words_of_it}".split(" ", 1), out=tmp_path / "run"
    )
    assert command.wait() == 2
    assert "8GB" in command.err and "The least that works is 140MB" in command.err
    assert "Traceback" not in command.err


def test_a_run_that_held_more_than_its_cap_has_failed_and_says_so(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "250MB"), plant="no_wall", out=out)
    assert command.wait() == 3
    assert "held" in command.err and "the cap is 250 MB" in command.err
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "over cap"
    assert report["measured_peak_bytes"] > 250 * MEGABYTE
    assert "failed: held more than its cap" in (out / "report.html").read_text()


def test_a_cap_beyond_the_machine_is_a_note(start, photos, tmp_path):
    command = start(
        *words(photos, tmp_path / "run", "--mem", "900TB", steps=2), out=tmp_path / "run"
    )
    assert command.wait() == 0, command.err
    assert "is more than this machine has" in command.err


def test_the_parent_is_small(start, photos, tmp_path):
    out = tmp_path / "run"
    command = start(*words(photos, out, "--mem", "300MB", steps=100_000), out=out)
    command.wait_for_steps(1)
    held = peak_of(command.process.pid)
    command.send(signal.SIGTERM)
    assert command.wait() == 130
    with subprocess.Popen([sys.executable, "-c", "print(); input()"], stdin=-1, stdout=-1) as bare:
        bare.stdout.readline()
        interpreter = peak_of(bare.pid)
        bare.communicate(b"\n")
    # a third of a megabyte of it is `_socket`, by which it holds the lock of a run folder
    assert held - interpreter < 2.5 * MEGABYTE


def peak_of(pid):
    """Return the most that a running process has held."""
    status = Path(f"/proc/{pid}/status").read_text()
    (held,) = [int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line]
    return held
