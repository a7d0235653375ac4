"""A fleet in Flower's simulation, where ray is installed: devices answer without training."""

import json
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edge_train import bench
from edge_train.fleet.averaging import Average
from edge_train.fleet.rounds import START
from edge_train.fleet.server import Server
from edge_train.fleet.wire import HELLO, IDENTITY, MEASURED, Answer, read_asked
from edge_train.memory.fresh import module

_COUNTS = (10, 100, 1000)
_ROUNDS = 3
_SLOPES = 4
_SECONDS = 1200


def flower(folder: Path) -> str:
    """Return a table of rounds in Flower's simulation, or that it is not installed."""
    if find_spec("flwr") is None or find_spec("ray") is None:
        return (
            "Flower's simulation is not installed here (`pip install flwr[simulation]`): the "
            "numbers above are of the grid inside this process."
        )
    rows: list[tuple[str, ...]] = []
    for count in _COUNTS:
        out = folder / str(count)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        try:
            subprocess.run(module(__name__, [str(out), str(count)]), check=True, timeout=_SECONDS)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            rows.append((str(count), f"it did not end: {type(error).__name__}", "", ""))
            continue
        found = json.loads((out / "found.json").read_text())
        rows.append((str(count), *(f"{found[name]:.3f}" for name in ("own", "thread", "all"))))
    head = ("devices", "our server", "with Flower's grid", "whole process")
    return (
        f"Through Flower's simulation on ray, processor seconds a round, {_ROUNDS} rounds of "
        f"{_SLOPES} slopes.\n\n{bench.table(head, rows)}"
    )


def _simulate(out: Path, count: int) -> None:
    """Run a fleet of so many devices in Flower's simulation; write what a round took."""
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from edge_train.fleet.flower import FlowerGrid

    client, server = ClientApp(), ServerApp()

    @client.train()  # type: ignore[untyped-decorator] # Flower may not be installed
    def measure(message: Any, context: Any) -> Any:
        content = answer(message.content["e"]["m"], np.random.default_rng(context.node_id))
        return Message(RecordDict({"e": ConfigRecord({"m": content})}), reply_to=message)

    @server.main()  # type: ignore[untyped-decorator]
    def main(grid: Any, _: Any) -> None:
        one, devices, rounds = Server(out, Average(), count, print), FlowerGrid(grid), 0
        own = thread = whole = 0.0
        while rounds < _ROUNDS:
            begun = one.open != START
            before = (time.thread_time(), time.process_time())
            messages = one.messages(devices.nodes())
            spent = time.thread_time() - before[0]
            answers = devices.exchange(messages, _SECONDS)
            middle = time.thread_time()
            for node, content in answers:
                one.take(node, content)
            one.close()
            if begun:
                own += spent + time.thread_time() - middle
                thread += time.thread_time() - before[0]
                whole += time.process_time() - before[1]
                rounds += 1
        one.book.close()
        found = {"own": own, "thread": thread, "all": whole}
        said = json.dumps({name: value / _ROUNDS for name, value in found.items()})
        (out / "found.json").write_text(said)

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, num_supernodes=count, backend_config=backend)


def answer(content: bytes, draw: np.random.Generator) -> bytes:
    """Return what a device would answer, with slopes from a draw."""
    asked = read_asked(content)
    if asked.kind == HELLO:
        return Answer(IDENTITY, asked.tag, START, text=json.dumps(_IDENTITY)).encode()
    count = 2 if asked.open == START else 1 + _SLOPES
    return Answer(MEASURED, asked.tag, asked.open, tuple(draw.normal(size=count))).encode()


_IDENTITY: dict[str, Any] = {
    "must": {
        **dict.fromkeys(
            ("edge-train", "exchange", "recipe", "model_sha256", "start_sha256"), "0" * 64
        ),
        "rules": 2,
        "runtime": "numpy",
        "dtype": "float32",
        "quant": "none",
    },
    "about": {
        "task": "network",
        "method": "zo",
        "seed": 0,
        "steps": 10**6,
        "evaluate_every": 10**6,
        "patience": 0,
        "best_margin": 0.0,
        "state_bytes": 1 << 30,
        "weight": 1.0,
        "device": "cpu",
        "versions": {},
    },
}


if __name__ == "__main__":
    _simulate(Path(sys.argv[1]), int(sys.argv[2]))
