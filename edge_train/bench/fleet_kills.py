"""A fleet of processes whose server and devices are killed at random instants, again and again."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from edge_train import bench
from edge_train.bench.fleet_learning import recipe, write_devices
from edge_train.fleet.averaging import Average
from edge_train.fleet.device import Device, Settings
from edge_train.fleet.server import Server
from edge_train.fleet.turns import train
from edge_train.memory.fresh import module
from edge_train.recipe import to_toml
from edge_train.records import journal

_DEVICES, _SAMPLES, _STEPS_A_KILL = 3, 300, 50  # a run that is long enough for all kills
_DEADLINE = 30.0
_PAUSES = (0.3, 3.0)  # seconds between kills
_MOST_SECONDS = 3000.0


class ProcessGrid:
    """Devices whose training processes are started as Flower's client starts them."""

    def __init__(self, devices: Mapping[int, Device]) -> None:
        self._devices = devices

    def nodes(self) -> list[int]:
        """Return their numbers."""
        return list(self._devices)

    def exchange(self, messages: Mapping[int, bytes], seconds: float) -> list[tuple[int, bytes]]:
        """Return what was answered within some seconds, or by all."""
        found: list[tuple[int, bytes]] = []

        def ask(node: int, content: bytes) -> None:
            found.append((node, self._devices[node].answer(content, seconds)))

        threads = [threading.Thread(target=ask, args=one, daemon=True) for one in messages.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds)
        return list(found)


def kills(folder: Path, data: Path, count: int) -> str:
    """Return a table: what is left of a fleet after so many kills."""
    shutil.rmtree(folder, ignore_errors=True)
    draw = np.random.default_rng(0)
    with np.load(data) as arrays:
        order = draw.permutation(len(arrays["train_labels"]))[: _DEVICES * _SAMPLES]
    paths = write_devices(folder, data, np.split(order, _DEVICES))
    steps = _STEPS_A_KILL * count
    (folder / "recipe.toml").write_text(to_toml(recipe(paths[0], steps, 0)))
    started = partial(subprocess.Popen, module(__name__, [str(folder)]))
    server, done = started(), {"server": 0, "device": 0}
    end = time.monotonic() + _MOST_SECONDS
    while server.poll() is None and time.monotonic() < end:
        if sum(done.values()) >= count:
            time.sleep(0.2)
            continue
        time.sleep(draw.uniform(*_PAUSES))
        victim = int(draw.integers(0, _DEVICES + 1))
        if victim == _DEVICES:
            server.kill()
            server.wait()
            server, done["server"] = started(), done["server"] + 1
        else:
            done["device"] += _kill(folder / f"device-{victim}")
    status = server.wait()
    for number in range(_DEVICES):
        _wait(folder / f"device-{number}", end)
    ends = [_parameters(folder / f"device-{number}" / "run") for number in range(_DEVICES)]
    same = all(one.keys() == ends[0].keys() for one in ends) and all(
        np.array_equal(one[name], ends[0][name]) for one in ends for name in one
    )
    journals = [_scalars(folder / f"device-{n}" / "run") for n in range(_DEVICES)]
    agree = all(one == _scalars(folder / "server") for one in journals)
    rows = [
        ("server killed", str(done["server"])),
        ("devices killed", str(done["device"])),
        ("steps", str(steps)),
        ("the last server ended with status", str(status)),
        ("devices with the bits of the first", f"{'all' if same else 'not all'} of {_DEVICES}"),
        ("journals of devices with the server's numbers", "all" if agree else "not all"),
    ]
    return (
        f"`kill -9` of a server and {_DEVICES} devices at random instants.\n\n"
        f"{bench.table(('what', 'found'), rows)}"
    )


def _kill(device: Path) -> int:
    """Kill the training process of a device; return 1 if there was one."""
    try:
        pid = int((device / "pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        if os.fsencode(str(device)) not in words:
            return 0
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return 0
    return 1


def _wait(device: Path, end: float) -> None:
    """Wait until the training process of a device has ended by itself."""
    while time.monotonic() < end:
        try:
            pid = int((device / "pid").read_text())
            if os.fsencode(str(device)) not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return
        except (OSError, ValueError):
            return
        time.sleep(0.2)


def _parameters(run: Path) -> dict[str, np.ndarray]:
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: path.name)
    found: dict[str, np.ndarray] = load_file(newest)
    return found


def _scalars(run: Path) -> list[tuple[object, ...]]:
    records, _ = journal.read(run / "journal.jsonl")
    names = ("step", "loss", "scalars", "eval", "skipped")
    return [tuple(json.dumps(r[n]) for n in names) for r in records if r["kind"] == "step"]


def _serve(folder: Path) -> None:
    """Be the server of a fleet, from its journal on, until training is over."""
    (folder / "server").mkdir(exist_ok=True)
    devices = {
        n: Device(
            folder / f"device-{n}",
            folder / "recipe.toml",
            {"data": str(folder / f"data-{n}.npz")},
            Settings(),
        )
        for n in range(_DEVICES)
    }
    server = Server(folder / "server", Average(), 2, lambda text: print(text, file=sys.stderr))
    train(server, ProcessGrid(devices), _DEADLINE, lambda: time.sleep(0.1))
    server.book.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve(Path(sys.argv[1]))
