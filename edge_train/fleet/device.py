"""A device between Flower and its training process, which stays from round to round.

Flower starts a client for every message; a model is loaded once. So the client hands the message
to the process that trains, and starts that one where there is none: `edge-train run` under the
device's own `--mem`, or `--resume` of what it was in the middle of when it was killed.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_train.errors import InputError
from edge_train.fleet.adapters import Local
from edge_train.fleet.calls import BookCalls, SocketCalls, call, check_socket_path
from edge_train.fleet.company import IDLE_SECONDS, Fleet
from edge_train.fleet.identity import MIXED, PRIVATE
from edge_train.fleet.privacy import Ledger, Privacy
from edge_train.fleet.wire import REFUSED, STOPPED, TAG_BYTES, Answer, read_asked
from edge_train.formats.atomic import write_bytes
from edge_train.memory.fresh import command
from edge_train.protocols import Company
from edge_train.recipe import read_toml
from edge_train.records.folder import RunFolder
from edge_train.tasks import DEFAULT, tasks

_SOCKET, _SETTINGS, _LOG, _PID, _RUN = "socket", "device.json", "run.log", "pid", "run"
_LEDGER = "released.json"
_PAUSE_SECONDS = 0.1
_started: "list[subprocess.Popen[bytes]]" = []  # by this process; they outlive it
_MOST_LOG = 4000


@dataclass(frozen=True)
class Settings:
    """What the app of a fleet says to the training process of a device.

    Attributes:
      clip, noise: of `Privacy`; 0: nothing is hidden.
      idle_seconds: without a message, after which the process ends, everything saved.
      exchange: "slopes" or "adapters".
    """

    clip: float = 0.0
    noise: float = 0.0
    idle_seconds: float = IDLE_SECONDS
    exchange: str = "slopes"

    def privacy(self) -> Privacy | None:
        """Return the noise on what is sent.

        Raises:
          InputError: one of clip and noise is not set.
        """
        return Privacy(self.clip, self.noise) if self.clip or self.noise else None


@dataclass(frozen=True)
class Device:
    """A device.

    Args:
      folder: of its own; the run stands in `run` below it.
      recipe: of the fleet.
      own: keys of the recipe that are this device's: `data`, `mem`, where its model lies.
      settings: of the app.
    """

    folder: Path
    recipe: Path
    own: Mapping[str, str]
    settings: Settings

    def answer(self, content: bytes, seconds: float) -> bytes:
        """Return the answer of the training process; it is started where there is none.

        Args:
          seconds: to wait for it, loading included.
        """
        try:
            asked = read_asked(content)
        except ValueError as error:
            return _stopped(bytes(TAG_BYTES), f"the server sent {error}")
        if asked.kind == REFUSED:
            with contextlib.suppress(OSError):
                write_bytes(self.folder / "refused.txt", (asked.text + "\n").encode())
        try:
            return self._answered(content, asked.tag, seconds)
        except InputError as error:
            return _stopped(asked.tag, str(error))
        except OSError as error:
            return _stopped(asked.tag, f"its training process went away ({error})")

    def _answered(self, content: bytes, tag: bytes, seconds: float) -> bytes:
        self.folder.mkdir(parents=True, exist_ok=True)
        socket, end = self.folder / _SOCKET, time.monotonic() + seconds
        check_socket_path(socket)
        started: subprocess.Popen[bytes] | None = None
        reap()
        while time.monotonic() < end:
            found = call(socket, content, max(1.0, end - time.monotonic()))
            if found is not None:
                return found
            if started is not None and started.poll() is not None:
                return _stopped(tag, self._last_words(started.returncode))
            if started is None and not self._is_running():
                started = self._start()
            time.sleep(_PAUSE_SECONDS)
        return _stopped(tag, f"its model was still being loaded after {seconds:g} s")

    def _start(self) -> "subprocess.Popen[bytes]":
        write_bytes(self.folder / _SETTINGS, json.dumps(asdict(self.settings)).encode())
        run = self.folder / _RUN
        if RunFolder(run).journal.exists():
            mem = ["--mem", self.own["mem"]] if "mem" in self.own else []
            words = ["run", "--resume", str(run), *mem]
        else:
            words = self._words(run)
        with (self.folder / _LOG).open("ab") as log:
            started = subprocess.Popen(
                command([*words, "--fleet", str(self.folder)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # it outlives the client that starts it
            )
        write_bytes(self.folder / _PID, str(started.pid).encode())
        _started.append(started)
        return started

    def _words(self, run: Path) -> list[str]:
        """Return the command that begins this device's run.

        Raises:
          InputError: a key is not one that devices may differ in, or there is no data.
        """
        recipe = self.folder / "recipe.toml"
        write_bytes(recipe, self.recipe.read_bytes())
        task = tasks.get(str(read_toml(recipe).get("task", DEFAULT)))
        flags = {
            n: key.spellings[0]
            for n, key in task.recipe.declared().items()
            if n in (*PRIVATE, *MIXED)
        }
        flags["mem"] = "--mem"
        data = self.own.get("data", "")
        if not data or not Path(data).expanduser().exists():
            raise InputError(
                f"data {data!r}: there is no such file or folder on this device; start its "
                "SuperNode with --node-config 'data=\"/path/of/its/data\"'."
            )
        words = ["run", str(Path(data).expanduser().absolute())]
        for name in self.own.keys() - {"data"}:
            if name not in flags:
                raise InputError(
                    f"node-config {name}: devices of a fleet differ in {', '.join(sorted(flags))} "
                    "and folder alone; leave it out."
                )
            words += [flags[name], self.own[name]]
        return [*words, "--recipe", str(recipe), "--out", str(run)]

    def _is_running(self) -> bool:
        """Return whether a process that an earlier client started is there."""
        try:
            pid = int((self.folder / _PID).read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return False
        return os.fsencode(str(self.folder)) in words

    def _last_words(self, status: int) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / _LOG).read_bytes()[-_MOST_LOG:].decode("utf-8", "replace")
            return f"its run ended with status {status}: {lines.strip().rpartition(chr(10))[2]}"
        return f"its run ended with status {status}"


def reap() -> None:
    """Let go of training processes that this process started and that have ended."""
    _started[:] = [one for one in _started if one.poll() is None]


def _stopped(tag: bytes, text: str) -> bytes:
    return Answer(STOPPED, tag, 0, text=text).encode()


def company_of(place: Path, say: Callable[[str], None]) -> Company:
    """Return who a run trains with: `run --fleet PLACE`.

    Args:
      place: folder of a device, or the journal of a server, whose rounds are taken as they are.

    Raises:
      InputError: it is neither, or noise is asked for where weights are exchanged.
    """
    if place.is_file():
        calls = BookCalls(place)
        return Local(calls) if calls.exchange == "adapters" else Fleet(calls)
    try:
        said: Mapping[str, Any] = json.loads((place / _SETTINGS).read_text("utf-8"))
        exchange = str(said.get("exchange", "slopes"))
        numbers = {name: float(value) for name, value in said.items() if name != "exchange"}
        settings = Settings(**numbers, exchange=exchange)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"--fleet {place}: neither the journal of a fleet's server nor the folder of a device; "
            "`edge-train fleet init` begins a fleet."
        ) from error
    privacy = settings.privacy()
    if settings.exchange == "slopes":
        ledger = Ledger(place / _LEDGER) if privacy else None
        return Fleet(SocketCalls(place / _SOCKET), privacy, settings.idle_seconds, say, ledger)
    if privacy is not None:
        raise InputError("fleet: clip and noise are for slopes; with adapters leave them out.")
    return Local(SocketCalls(place / _SOCKET), settings.idle_seconds)
