"""Three real processes train together through `flwr run`; one is killed and comes back.

Needs Flower: `pip install edge-train[fleet]`, then `pytest -m slow tests/fleet/test_flower.py -s`.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import places
import pytest
from fleets import SCALES, bits, steps, write_data

STEPS = 8
RECIPE = f"""\
task = "network"
method = "zo"
network = "mlp 4"
steps = {STEPS}
evaluate_every = 4
samples = 10
learning_rate = 0.05
epsilon = 0.01
queries = 4
continual = "none"
standardization = "{SCALES.strip()}"
"""
BIN = Path(sys.executable).parent
SECONDS = 900.0


class Counted:
    """A door to a port that counts the bytes through it."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.up = self.down = 0
        self._closing: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._open, daemon=True).start()

    def _open(self) -> None:
        while True:
            here, _ = self._door.accept()
            there = socket.create_connection(("127.0.0.1", self._to))
            for source, target, name in ((here, there, "up"), (there, here, "down")):
                threading.Thread(
                    target=self._pass, args=(source, target, name), daemon=True
                ).start()

    def _pass(self, source: socket.socket, target: socket.socket, name: str) -> None:
        try:
            while part := source.recv(1 << 16):
                setattr(self, name, getattr(self, name) + len(part))
                target.sendall(part)
        except OSError:
            pass
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        if name == "up":  # the other direction ends by that
            self._closing += [source, target]

    def close(self) -> None:
        """Let go of every connection."""
        for one in (self._door, *self._closing):
            one.close()


@pytest.fixture
def started(tmp_path):
    """Return a function that starts a program of Flower; all end with the test."""
    if find_spec("flwr") is None or not (BIN / "flwr").exists():
        pytest.skip("Flower is not installed: `pip install edge-train[fleet]`")
    ours = str(places.ROOT)
    env = {
        **os.environ,
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": ours,
        "OMP_NUM_THREADS": "1",
    }
    running: list[subprocess.Popen[bytes]] = []

    def start(log: str, *words: str) -> subprocess.Popen[bytes]:
        with (tmp_path / log).open("ab") as file:
            one = subprocess.Popen(
                [str(BIN / words[0]), *words[1:]],
                cwd=tmp_path,
                env=env,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        running.append(one)
        return one

    yield start
    for one in running:
        _end(one)


def _end(one: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL)
    one.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its door
def test_three_processes_of_which_one_is_killed(tmp_path, started):
    _write(tmp_path)
    port = _free_port()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n"
    )
    app = tmp_path / "app"
    words = [sys.executable, "-m", "edge_train", "fleet", "init", "recipe.toml", "app"]
    subprocess.run(
        words, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(places.ROOT)}
    )
    started("link.log", "flower-superlink", *_LINK, "--port", str(port))
    _reachable(port)
    door = Counted(port)

    def node(number: int) -> subprocess.Popen[bytes]:
        folder = tmp_path / f"device-{number}"
        config = f'data="{tmp_path}/{number}.npz" mem="1GB" folder="{folder}"'
        to = f"127.0.0.1:{door.port if number == 0 else port}"
        place = ("--superlink", to, "--port", str(_free_port()))
        return started(f"node-{number}.log", *_NODE, *place, "--node-config", config)

    node(0)
    second = node(1)
    time.sleep(3)
    run = started("run.log", "flwr", "run", str(app), "here")
    assert run.wait(60) == 0, (tmp_path / "run.log").read_text()
    server = tmp_path / "app-server"
    _until(lambda: len(_lines(server)) >= 3)
    before = (door.up, door.down, len(_lines(server)))
    _until(lambda: len(_lines(server)) >= 5)
    after = (door.up, door.down, len(_lines(server)))
    _end(second)
    _kill_training(tmp_path / "device-1")
    node(1)
    _until((tmp_path / "device-0" / "run" / "report.html").exists)
    _until((tmp_path / "device-1" / "run" / "report.html").exists)
    ends = {bits(tmp_path / f"device-{number}" / "run") for number in range(2)}
    assert len(ends) == 1
    assert steps(tmp_path / "device-1" / "run") == steps(server)
    again = tmp_path / "again"
    words = ["run", str(tmp_path / "1.npz"), "--recipe", "recipe.toml", "--out", str(again)]
    words += ["--fleet", str(server / "journal.jsonl")]
    subprocess.run(
        [sys.executable, "-m", "edge_train", *words],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": str(places.ROOT)},
    )
    assert bits(again) in ends
    rounds = after[2] - before[2]
    print(
        f"\nwire bytes a round of a device, polling and HTTP included: "
        f"{(after[0] - before[0]) / rounds:.0f} up, {(after[1] - before[1]) / rounds:.0f} down; "
        f"{rounds} rounds"
    )


_LINK = ("--insecure", "--disable-runtime-dependency-installation")
_NODE = ("flower-supernode", "--insecure")


def _write(folder: Path) -> None:
    (folder / "recipe.toml").write_text(RECIPE)
    for number in range(2):
        write_data(folder / f"{number}.npz", (number,), seed=number)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


def _reachable(port: int) -> None:
    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    _until(answers)


def _until(holds) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.5)


def _lines(server: Path) -> list[str]:
    try:
        lines = (server / "journal.jsonl").read_text().splitlines()
    except OSError:
        return []
    return [line for line in lines if line.startswith('{"kind":"step"')]


def _kill_training(device: Path) -> None:
    pid = int((device / "pid").read_text())
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    for one in [*map(int, found.stdout.split()), pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Flower imports
def test_what_flower_sends_of_a_round():
    """The record around our bytes is small; counted with Flower's own coding where it is there."""
    if find_spec("flwr") is None:
        pytest.skip("Flower is not installed: `pip install edge-train[fleet]`")
    from flwr.app import ConfigRecord, RecordDict
    from flwr.common.serde import recorddict_to_proto

    from edge_train.fleet.wire import ASK, MEASURED, Answer, Asked

    values = (0.5, 1.0, 2.0, 3.0, 4.0)
    for content in (
        Asked(ASK, b"abcd", 100_000, {99_999: values}).encode(),
        Answer(MEASURED, b"abcd", 100_000, values).encode(),
    ):
        record = recorddict_to_proto(RecordDict({"e": ConfigRecord({"m": content})}))
        size = len(record.SerializeToString())
        print(f"{len(content)} bytes of ours, {size} as Flower's record")
        assert size <= 100
