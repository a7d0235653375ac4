"""Devices that take steps by themselves and send what changed: they end with the same bits."""

from dataclasses import replace

import numpy as np
import pytest
from fleets import finish, recipe, steps, write_data
from safetensors.numpy import load_file

from edge_train.fleet import wire
from edge_train.fleet.adapters import Local
from edge_train.fleet.averaging import Average
from edge_train.fleet.calls import BookCalls
from edge_train.fleet.grid import LocalDevice, LocalGrid, Silent
from edge_train.fleet.int8 import layout_of, message_bytes, pack, unpack
from edge_train.fleet.server import Server
from edge_train.fleet.wire import read_answer
from edge_train.records import journal
from edge_train.run import session

_EXACT = {"method": "backprop", "epsilon": None, "steps": 12, "evaluate_every": 3, "patience": 0}


@pytest.fixture
def data(tmp_path):
    """Return three devices' data, a class each."""
    return [write_data(tmp_path / f"{c}.npz", (c,), seed=c) for c in range(3)]


def device(folder, data, **changes):
    """Return a device that begins, or goes on, in a folder."""
    return LocalDevice(recipe(data, **{**_EXACT, **changes}), folder, exchange="adapters")


def server(folder, quorum, said, rule="mean"):
    """Return a server that begins or goes on in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Server(folder, Average(rule, 0.34), quorum, said.append, exchange="adapters")


def weights(run):
    """Return the last parameters of a run, and what it hands out; moments are each device's own."""
    newest = max((run / "checkpoints").glob("*.safetensors"), key=lambda p: p.name.split("-")[1])
    found = {n: v for n, v in load_file(newest).items() if not n.startswith("state/")}
    handed = load_file(run / "network.safetensors")
    return {n: (v.shape, v.tobytes()) for n, v in {**found, **handed}.items()}


def evals(run):
    """Return the evaluations in a journal."""
    records, _ = journal.read(run / "journal.jsonl")
    return [r["eval"] for r in records if r["kind"] == "step" and r["eval"] is not None]


def _one_round(one, grid):
    for node, content in grid.exchange(one.messages(grid.nodes()), 20):
        one.take(node, content)
    one.close()


def test_devices_and_the_servers_journal_end_with_the_same_weights(tmp_path, data):
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n]) for n in range(3)})
    finish(server(tmp_path / "s", 3, []), grid)
    assert [one.error for one in grid.devices.values()] == ["", "", ""]
    assert weights(tmp_path / "d0") == weights(tmp_path / "d1") == weights(tmp_path / "d2")
    assert evals(tmp_path / "s") == evals(tmp_path / "d2")
    assert evals(tmp_path / "s")[-1] < evals(tmp_path / "s")[0]
    assert len(steps(tmp_path / "s")) == 4  # rounds of three steps
    assert steps(tmp_path / "d0") != steps(tmp_path / "d1")  # each saw its own data
    alone = replace(recipe(data[1], **_EXACT), out=str(tmp_path / "again"))
    session.run(alone, Silent(), company=Local(BookCalls(tmp_path / "s" / "journal.jsonl")))
    assert weights(tmp_path / "again") == weights(tmp_path / "d0")


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_killed_device_catches_up(tmp_path, data, at):
    one = server(tmp_path / "s", 2, [])
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n], steps=24) for n in range(3)})
    while len(one.book.entries) < at:
        _one_round(one, grid)
    grid.devices[0].kill()
    while len(one.book.entries) < at + 4:
        _one_round(one, grid)
    grid.devices[9] = device(tmp_path / "d0", data[0], steps=24)
    finish(one, grid)
    assert grid.devices[9].error == ""
    assert weights(tmp_path / "d0") == weights(tmp_path / "d1") == weights(tmp_path / "d2")
    took = [r["fleet"]["count"] for r in _journal(tmp_path / "s") if r["kind"] == "step"]
    assert 2 in took and took[-1] == 3


def test_a_new_server_goes_on_and_who_comes_late_gets_the_sum(tmp_path, data):
    one = server(tmp_path / "s", 2, [])
    grid = LocalGrid({n: device(tmp_path / f"d{n}", data[n], steps=30) for n in range(2)})
    while len(one.book.entries) < 14:  # the weights of the seventh round, not its evaluation
        _one_round(one, grid)
    one.book.close()
    two = server(tmp_path / "s", 2, [])
    sent: list[int] = []
    exchange = grid.exchange

    def listened(messages, seconds):
        sent.extend(wire.read_asked(m).kind for m in messages.values())
        return exchange(messages, seconds)

    grid.exchange = listened
    grid.devices[7] = device(tmp_path / "late", data[2], steps=30)
    finish(two, grid)
    assert grid.devices[7].error == ""
    assert wire.JUMP in sent
    assert weights(tmp_path / "late") == weights(tmp_path / "d0") == weights(tmp_path / "d1")
    skipped = [r for r in _journal(tmp_path / "late") if r["kind"] == "step" and r["skipped"]]
    assert len(skipped) == 18
    assert {r["skipped"] for r in skipped} == {"the fleet took it without this device"}


def test_garbage_is_left_out_and_a_median_stands_against_lies(tmp_path, data):
    odd = {
        1: lambda a: replace(a, content=a.content[:-3]),
        2: lambda a: replace(a, content=pack([np.full((3, 2), 1e30, np.float32)], 0.1)),
        3: lambda a: replace(a, content=b"\xff\xff" + b"\xff" * 40),
        4: lambda a: replace(a, kind=wire.MEASURED, values=(1.0, 2.0)),
    }
    rounds: list[int] = []

    def change(node, content):
        answer = read_answer(content)
        if node != 2 or answer.kind != wire.WEIGHTS:
            return [content]
        rounds.append(1)
        if len(rounds) in odd:
            return [odd[len(rounds)](answer).encode()]
        lie = [b * np.float32(1e6) + 1 for b in unpack(content[10:])]
        return [replace(answer, content=pack(lie, 0.1)).encode()]

    said: list[str] = []
    devices = {n: device(tmp_path / f"d{n}", data[n], steps=18) for n in range(3)}
    finish(server(tmp_path / "s", 2, said, "median"), LocalGrid(devices, change))
    assert weights(tmp_path / "d0") == weights(tmp_path / "d1") == weights(tmp_path / "d2")
    assert sum("device 2 is left out" in text for text in said) == 4
    assert evals(tmp_path / "s")[-1] < 1.5


def test_weights_in_few_bits_are_refused(tmp_path, data):
    one = device(tmp_path / "d", data[0], quant="int8")
    one.thread.join(20)
    assert "with adapters the trained weights are in float32" in one.error


def test_a_changed_file_of_a_round_is_named(tmp_path, data):
    finish(server(tmp_path / "s", 1, []), LocalGrid({0: device(tmp_path / "d", data[0])}))
    path = tmp_path / "s" / "rounds" / "2.int8"
    path.write_bytes(path.read_bytes()[:-1] + b"\x05")
    with pytest.raises(Exception, match=r"2\.int8: it was changed since it was agreed on"):
        BookCalls(tmp_path / "s" / "journal.jsonl")


def test_int8_with_a_scale_a_row():
    draw = np.random.default_rng(0)
    blocks = [draw.normal(size=(5, 40)).astype(np.float32), np.zeros((1, 3), np.float32)]
    blocks[0][2] *= 1000
    content = pack(blocks, 0.5)
    assert layout_of(content) == (((5, 40), (1, 3)), 0.5)
    assert len(content) == message_bytes([(5, 40), (1, 3)])
    found = unpack(content)
    largest = np.abs(blocks[0]).max(axis=1, keepdims=True)
    assert (np.abs(found[0] - blocks[0]) <= largest / 254 * 1.001).all()
    assert (found[1] == 0).all()
    assert pack(found, 0.5) == content
    for bad in (b"", content[:-1], content + b"x", content[:20]):
        with pytest.raises(ValueError, match="weights"):
            unpack(bad)
    with pytest.raises(ValueError, match="not finite"):
        unpack(content.replace(np.float64(0.5).tobytes(), np.float64(np.nan).tobytes()))


def _journal(folder):
    return list(journal.read(folder / "journal.jsonl")[0])
