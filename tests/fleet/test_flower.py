"""Real processes train together through `flwr run`; devices and the server are killed.

Needs Flower: `pip install edge-train[fleet]`, then `pytest -m slow tests/fleet/test_flower.py -s`.
"""

import os
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from fleet_tasks import CASES, SHARED, learned
from fleets import SCALES, bits, steps, write_data
from flower_programs import (
    BIN,
    Counted,
    Programs,
    end,
    free_port,
    kill_training,
    lines_of,
    until,
    write_certificates,
)

from edge_train.recipe import to_toml
from edge_train.tasks import recipe_of

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
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def programs(tmp_path):
    """Return what starts programs of Flower; all end with the test."""
    if find_spec("flwr") is None or not (BIN / "flwr").exists():
        pytest.skip("Flower is not installed: `pip install edge-train[fleet]`")
    found = Programs(tmp_path)
    yield found
    found.close()


def _node(programs, number, port, data, *words):
    folder = programs.folder / f"device-{number}"
    config = f'data="{data}" mem="2GB" folder="{folder}"'
    place = ("--superlink", f"127.0.0.1:{port}", "--port", str(free_port()))
    secure = words or ("--insecure",)
    return programs.start(
        f"node-{number}.log", "flower-supernode", *secure, *place, "--node-config", config
    )


def _done(device: Path) -> bool:
    return (device / "run" / "report.html").exists()


@pytest.mark.slow
def test_three_processes_of_which_one_is_killed(tmp_path, programs):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    data = [write_data(tmp_path / f"{n}.npz", (n,), seed=n) for n in range(2)]
    programs.edge_train("fleet", "init", "recipe.toml", "app")
    port = free_port()
    programs.link(port, "--insecure")
    door = Counted(port)
    _node(programs, 0, door.port, data[0])
    second = _node(programs, 1, port, data[1])
    time.sleep(3)
    programs.run(tmp_path / "app")
    server = tmp_path / "app-server"
    until(lambda: len(lines_of(server)) >= 3)
    before = (door.up, door.down, len(lines_of(server)))
    until(lambda: len(lines_of(server)) >= 5)
    after = (door.up, door.down, len(lines_of(server)))
    end(second)
    kill_training(tmp_path / "device-1")
    _node(programs, 1, port, data[1])
    for number in range(2):
        until(lambda n=number: _done(tmp_path / f"device-{n}"))
    ends = {bits(tmp_path / f"device-{number}" / "run") for number in range(2)}
    assert len(ends) == 1
    assert steps(tmp_path / "device-1" / "run") == steps(server)
    again = ("--recipe", "recipe.toml", "--out", "again")
    journal = ("--fleet", str(server / "journal.jsonl"))
    programs.edge_train("run", str(data[1]), *again, *journal)
    assert bits(tmp_path / "again") in ends
    rounds = after[2] - before[2]
    print(
        f"\nwire bytes a round of a device, polling and HTTP included: "
        f"{(after[0] - before[0]) / rounds:.0f} up, {(after[1] - before[1]) / rounds:.0f} down; "
        f"{rounds} rounds"
    )


@pytest.mark.slow
def test_a_killed_server_goes_on_behind_tls_with_adapters(tmp_path, programs):
    """The server is killed; a new `flwr run` goes on from its journal. Weights, FedAvg, TLS."""
    exact = RECIPE.replace('"zo"', '"adamw"').replace("evaluate_every = 4", "evaluate_every = 2")
    lines = [line for line in exact.splitlines() if line.split()[0] not in ("epsilon", "queries")]
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    data = [write_data(tmp_path / f"{n}.npz", (n,), seed=n) for n in range(2)]
    programs.edge_train("fleet", "init", "recipe.toml", "app", "--exchange", "adapters")
    write_certificates(tmp_path)
    port = free_port()
    ours = ("--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key")
    programs.link(port, *ours, "--ssl-ca-certfile", "ca.crt")
    for number in range(2):
        _node(programs, number, port, data[number], "--root-certificates", "ca.crt")
    time.sleep(3)
    programs.run(tmp_path / "app")
    server = tmp_path / "app-server"
    until(lambda: len(lines_of(server)) >= 1)
    _kill_servers(tmp_path)
    had = len(lines_of(server))
    assert had < STEPS // 2
    programs.run(tmp_path / "app")
    for number in range(2):
        until(lambda n=number: _done(tmp_path / f"device-{n}"))
    networks = [
        (tmp_path / f"device-{n}" / "run" / "network.safetensors").read_bytes() for n in range(2)
    ]
    assert networks[0] == networks[1]
    assert len(lines_of(server)) == STEPS // 2
    assert '"kind":"resume"' in (server / "journal.jsonl").read_text()
    assert "plain" not in (tmp_path / "link.log").read_text()


def _kill_servers(folder: Path) -> None:
    """Kill the server's process, as `kill -9` does it; Flower's SuperLink stays."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    servers = [line for line in listed.stdout.splitlines() if "flwr-serverapp" in line]
    pids = [int(line.split()[0]) for line in servers]
    pids = [pid for pid in pids if _environment(pid).get("FLWR_HOME") == str(folder / "home")]
    assert pids, "no server is running"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _environment(pid: int) -> dict[str, str]:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["personalize, onnx", "classify, head", "language-model, numpy"])
def test_other_tasks_through_flower(tmp_path, programs, case):
    name, shared, data, more = CASES[case]
    values = {"task": name, **SHARED, **shared(tmp_path), **more, "steps": 2}
    (tmp_path / "recipe.toml").write_text(to_toml(recipe_of(values, "")))
    programs.edge_train("fleet", "init", "recipe.toml", "app")
    port = free_port()
    programs.link(port, "--insecure")
    for number in range(2):
        _node(programs, number, port, data(tmp_path, number))
    time.sleep(3)
    programs.run(tmp_path / "app")
    for number in range(2):
        until(lambda n=number: _done(tmp_path / f"device-{n}"))
    runs = [tmp_path / f"device-{number}" / "run" for number in range(2)]
    assert learned(runs[0]) == learned(runs[1])
    assert steps(runs[0]) == steps(runs[1]) == steps(tmp_path / "app-server")


@pytest.mark.slow
def test_a_device_that_does_not_know_the_authority_is_not_let_in(tmp_path, programs):
    write_certificates(tmp_path)
    port = free_port()
    ours = ("--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key")
    programs.link(port, *ours, "--ssl-ca-certfile", "ca.crt")
    (tmp_path / "other").mkdir()
    write_certificates(tmp_path / "other")
    node = _node(programs, 0, port, "none.npz", "--root-certificates", "other/ca.crt")
    until(lambda: node.poll() is not None or "ertificate" in (tmp_path / "node-0.log").read_text())
    said = (tmp_path / "node-0.log").read_text()
    assert "ertificate" in said or "SSL" in said or "handshake" in said.lower(), said


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
