"""`edge-train bench fleet`: what a fleet sends, learns, survives, and what it costs its server.

Devices are runs in this process (`fleet/grid.py`) or, where they are killed, processes; the bytes
are those that would be sent. Flower's own part is measured by its test (`tests/fleet`).
"""

import resource
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_train import bench
from edge_train.bench.fleet_flower import answer, flower
from edge_train.bench.fleet_head import head
from edge_train.bench.fleet_kills import kills
from edge_train.bench.fleet_learning import by_weights, dirichlet, liars, one_class_each
from edge_train.errors import InputError
from edge_train.fleet.averaging import Average
from edge_train.fleet.rounds import START
from edge_train.fleet.server import Server
from edge_train.units import format_bytes

_SLOPES = 4
_COUNTS = (10, 100, 1000)
_ROUNDS = 40
_MANY = 10**6


def main(
    out: Path,
    seeds: int,
    data: Path | None = None,
    model: Path | None = None,
    limit: int = 2000,
    samples: int = 50,
) -> str:
    """Run a fleet in every way; return Markdown tables.

    Args:
      seeds: fleets of each row of what is learned.
      data: a folder with `fashion_mnist.npz` and `sst2`.
      model: folder of an encoder for the head on SST-2; None: that is left out.
      limit: steps of a run.
      samples: kills.

    Raises:
      InputError: the data is not there.
    """
    if data is None or not (data / "fashion_mnist.npz").is_file():
        raise InputError("bench fleet needs --data FOLDER with fashion_mnist.npz.")
    folder = out / "fleet"
    folder.mkdir(parents=True, exist_ok=True)
    images = data / "fashion_mnist.npz"
    parts = [
        _server_costs(folder / "server"),
        flower(folder / "flower"),
        one_class_each(folder / "classes", images, limit, seeds),
        dirichlet(folder / "dirichlet", images, limit, seeds),
        by_weights(folder / "weights", images, max(limit // 5, 20), seeds),
        liars(folder / "liars", images, max(limit // 8, 20), max(seeds, 3)),
        kills(folder / "kills", images, samples),
    ]
    if model is not None:
        parts.append(head(folder / "head", data / "sst2", model, limit, seeds))
    return "\n\n".join(parts)


def _server_costs(folder: Path) -> str:
    """Return a table of a round's cost for the server, by how many devices there are."""
    rows, each = [], (0.0, 0.0)
    for count in _COUNTS:
        found = _rounds(folder / str(count), count)
        each = (found["seconds"] / count, found["down"] / count)
        cells = (f"{found['seconds']:.4f}", format_bytes(int(found["resident"])))
        rows.append((str(count), *cells, *(f"{found[n] / count:.0f}" for n in ("up", "down"))))
    seconds = each[0] * _MANY
    head = ("devices", "processor seconds a round", "resident", "bytes up, a device", "down")
    return (
        f"The server's part of a round, {_SLOPES} slopes, {_ROUNDS} rounds; devices answer without "
        f"training.\n\n{bench.table(head, rows)}\n\n"
        f"On paper, from the last row: {_MANY:,} devices would take {seconds:.0f} processor "
        f"seconds and {format_bytes(int(each[1] * _MANY))} down a round."
    )


def _rounds(folder: Path, count: int) -> Mapping[str, float]:
    """Return what rounds of devices that do not train cost a server, each on average."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").unlink(missing_ok=True)
    server = Server(folder, Average(), count, lambda text: None)
    draw = np.random.default_rng(0)
    spent, up, down, rounds = 0.0, 0, 0, 0
    while rounds < _ROUNDS:
        began = time.process_time()
        messages = server.messages(list(range(count)))
        spent += time.process_time() - began
        answers = {node: answer(content, draw) for node, content in messages.items()}
        begun = server.open != START
        if begun:
            up += sum(map(len, answers.values()))
            down += sum(map(len, messages.values()))
        else:
            spent = 0.0
        began = time.process_time()
        for node, content in answers.items():
            server.take(node, content)
        server.close()
        spent += time.process_time() - began
        rounds += begun
    server.book.close()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": spent / _ROUNDS,
        "up": up / _ROUNDS,
        "down": down / _ROUNDS,
        "resident": resident,
    }
