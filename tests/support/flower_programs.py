"""Programs of Flower that tests start, and what they wait for; all end with the test."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import places

BIN = Path(sys.executable).parent
SECONDS = 900.0
LINK = ("--disable-runtime-dependency-installation",)


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


class Programs:
    """Programs in a folder, with a home of Flower's own there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "home").mkdir(exist_ok=True)
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(places.ROOT),
            "OMP_NUM_THREADS": "1",
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, log: str, *words: str) -> subprocess.Popen[bytes]:
        """Start one, in a session of its own."""
        with (self.folder / log).open("ab") as file:
            one = subprocess.Popen(
                [str(BIN / words[0]), *words[1:]],
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._running.append(one)
        return one

    def edge_train(self, *words: str) -> None:
        """Run a command of ours; fail unless it succeeds."""
        command = [sys.executable, "-m", "edge_train", *words]
        subprocess.run(command, cwd=self.folder, check=True, env=self.environment)

    def run(self, app: Path, *words: str) -> None:
        """Say `flwr run`, and wait until the run has begun."""
        one = self.start("run.log", "flwr", "run", str(app), "here", *words)
        assert one.wait(120) == 0, (self.folder / "run.log").read_text()

    def link(self, port: int, *words: str) -> None:
        """Start a SuperLink, which `flwr run ... here` then speaks to."""
        secure = "insecure = true" if "--insecure" in words else 'root-certificates = "ca.crt"'
        (self.folder / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
            f"{secure}\n".replace('"ca.crt"', f'"{self.folder / "ca.crt"}"')
        )
        self.start("link.log", "flower-superlink", *LINK, *words, "--port", str(port))
        reachable(port)

    def close(self) -> None:
        """End all of them."""
        for one in self._running:
            end(one)


def write_certificates(folder: Path) -> None:
    """Write an authority of one's own (ca.crt) and a server's certificate, with openssl."""
    (folder / "san.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new = ("-newkey", "rsa:2048", "-nodes")
    for words in (
        ("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=mine"),
        ("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"),
        (
            *("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-out", "server.pem", "-extfile", "san.ext"),
        ),
    ):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def end(one: subprocess.Popen[bytes]) -> None:
    """End a program and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL)
    one.wait()


def free_port() -> int:
    """Return a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


def reachable(port: int) -> None:
    """Wait until somebody listens at a port."""

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    until(answers)


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.5)


def lines_of(server: Path) -> list[str]:
    """Return the steps in a server's journal."""
    try:
        lines = (server / "journal.jsonl").read_text().splitlines()
    except OSError:
        return []
    return [line for line in lines if line.startswith('{"kind":"step"')]


def kill_training(device: Path) -> None:
    """Kill the training process of a device with its children."""
    pid = int((device / "pid").read_text())
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    for one in [*map(int, found.stdout.split()), pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
