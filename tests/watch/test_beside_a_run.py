"""Real runs: watched from beside, stopped and resumed from the page."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from running import STALLED_SECONDS, Command, steps_in
from watched_page import Page

from edge_train import cli
from edge_train.memory.fresh import command as command_of
from edge_train.memory.measure import process_tree
from edge_train.watch import holder

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not holder.HAS_PROC, reason="needs /proc"),
]
LONG = ("--network", "mlp 8", "--mem", "300MB", "--steps", "5000000")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b,y\n" + "".join(f"{n % 7},{n % 5},{n % 2}\n" for n in range(64)))
    return path


def until(reached):
    """Return what `reached` does, once that is true."""
    since = time.monotonic()
    while not (found := reached()):
        assert time.monotonic() - since < STALLED_SECONDS
        time.sleep(0.02)
    return found


def answers(address):
    """Return whether a page is there."""
    try:
        with urllib.request.urlopen(address + "runs", timeout=60) as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


def test_a_run_is_stopped_and_resumed_from_the_page(table, tmp_path):
    out = tmp_path / "runs" / "rows"
    with Command("run", table, *LONG, "--out", out, out=out) as command:
        command.wait_for_steps(3)
        with Page(tmp_path / "runs") as page:
            assert page.ask("/run/rows/stop", "POST")[0] == 200
            assert command.wait() == 130
            stopped = steps_in(out)
            assert page.data("/run/rows/data")["status"] == "interrupted"
            assert page.ask("/run/rows/resume", "POST")[0] == 200
            process = page.runs._started["rows"]
            try:
                assert page.ask("/run/rows/resume", "POST")[0] == 409
                until(lambda: process.poll() is not None or steps_in(out) > stopped)
                until(lambda: page.ask("/run/rows/stop", "POST")[0] == 200)
                assert process.wait() == 130
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_page_beside_a_run_is_part_of_it_and_ends_with_it(table, tmp_path, end):
    out = tmp_path / "rows"
    with Command("run", table, *LONG, "--out", out, "--watch", out=out) as command:
        command.wait_for_steps(3)
        said = command._read(command._files[1])
        address = re.search(r"at (http://127\.0\.0\.1:\d+/)", said)[1]
        until(lambda: answers(address))
        tree = list(process_tree(command.process.pid))
        assert len(tree) == 3  # all that is measured and walled: supervisor, worker, page
        if end == "stop":
            command.send(signal.SIGINT)
            assert command.wait() == 130
        else:
            os.kill(tree[1], signal.SIGKILL)
            assert command.wait() == 3
        until(lambda: not Path(f"/proc/{tree[2]}").exists())
        assert not answers(address)


def test_watch_holds_less_than_eight_megabytes_and_ends_by_ctrl_c(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    process = subprocess.Popen(
        command_of(["watch", str(folder)]), stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stderr.readline()
        address = re.search(r"at (http://127\.0\.0\.1:\d+/)", line)[1]
        assert answers(address)
        held = resident(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    code = "print(int(open('/proc/self/statm').read().split()[1]))"
    bare = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert held - int(bare.stdout) * os.sysconf("SC_PAGE_SIZE") < 8_000_000


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["watch"]) == 2
    said = capsys.readouterr().err
    assert "runs: there is no such folder" in said and said.count("\n") == 1


@pytest.mark.parametrize("port", ["65536", "-1"])
def test_a_port_that_no_machine_has_is_one_sentence(tmp_path, capsys, port):
    assert cli.main(["watch", str(tmp_path), "--port", port]) == 2
    assert capsys.readouterr().err == f"edge-train: --port is {port}, must be from 0 to 65535.\n"


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "ä" * 64])
def test_an_address_that_is_not_ours_is_one_sentence(tmp_path, host):
    command = command_of(["watch", str(tmp_path), "--host", host])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the page cannot be offered there" in done.stderr
    assert done.stderr.count("\n") == 1
