"""`edge-train fleet init`, and a device whose training process is a process."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fleets import SCALES, bits, server, steps, write_data

from edge_train.cli import main
from edge_train.errors import InputError
from edge_train.fleet import wire
from edge_train.fleet.calls import check_socket_path
from edge_train.fleet.device import Device, Settings, company_of, reap
from edge_train.fleet.wire import Asked, read_answer
from edge_train.recipe import read_toml

RECIPE = f"""\
task = "network"
method = "zo"
network = "mlp 4"
steps = 6
evaluate_every = 3
samples = 10
learning_rate = 0.05
epsilon = 0.01
continual = "none"
standardization = "{SCALES.strip()}"
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    """Return the file of a recipe."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE + 'data = "mine.npz"\nmem = "1GB"\n')
    return path


def test_init_writes_an_app(tmp_path, recipe, capsys):
    assert main(["fleet", "init", str(recipe), str(tmp_path / "app")]) == 0
    assert f"`flwr run {tmp_path / 'app'}` trains it" in capsys.readouterr().out
    app = read_toml(tmp_path / "app" / "pyproject.toml")["tool"]["flwr"]["app"]
    assert app["components"]["serverapp"] == "fleet_app.server_app:app"
    assert app["config"]["folder"] == str(tmp_path / "app-server")
    shared = read_toml(tmp_path / "app" / "fleet_app" / "recipe.toml")
    assert shared["network"] == "mlp 4"
    assert not {"data", "mem", "cap_bytes", "out"} & shared.keys()  # each device has its own
    for side in ("server", "client"):
        code = (tmp_path / "app" / "fleet_app" / f"{side}_app.py").read_text().splitlines()
        assert code == [
            f"from edge_train.fleet.flower import {side}_app",
            f"app = {side}_app(__file__)",
        ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('method = "zo"', 'method = "backprop"'), "method 'backprop' is not for a fleet"),
        (('method = "zo"', ""), "method 'auto' is not for a fleet"),
        ((f'standardization = "{SCALES.strip()}"', ""), "set standardization"),
        (("steps = 6", "steps = 6\nclip = 1.0"), "clip is of one machine"),
        (("steps = 6", 'steps = 6\ntime = "5m"'), "time is of one machine"),
        (('task = "network"', 'task = "images"'), "is not a key of"),
    ],
)
def test_recipes_that_no_fleet_trains_are_refused(tmp_path, recipe, capsys, change, sentence):
    recipe.write_text(recipe.read_text().replace(*change))
    assert main(["fleet", "init", str(recipe), str(tmp_path / "app")]) == 2
    said = capsys.readouterr().err
    assert sentence in said or "images" in change[1], said
    assert not (tmp_path / "app").exists()


def test_an_app_is_not_written_over(tmp_path, recipe, capsys):
    (tmp_path / "app").mkdir()
    assert main(["fleet", "init", str(recipe), str(tmp_path / "app")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_device_without_data_says_so(tmp_path, recipe):
    one = Device(tmp_path / "d", recipe, {}, Settings())
    answer = read_answer(one.answer(Asked(wire.HELLO, b"abcd", 0).encode(), 5))
    assert answer.kind == wire.STOPPED
    assert "--node-config 'data=" in answer.text
    odd = Device(tmp_path / "d", recipe, {"data": str(recipe), "steps": "9"}, Settings())
    answer = read_answer(odd.answer(Asked(wire.HELLO, b"abcd", 0).encode(), 5))
    assert "node-config steps: devices of a fleet differ in" in answer.text
    assert "nonsense" not in read_answer(odd.answer(b"nonsense", 5)).text


def test_a_folder_that_is_no_device(tmp_path):
    with pytest.raises(InputError, match="neither the journal of a fleet's server"):
        company_of(tmp_path, lambda text: None)
    (tmp_path / "device.json").write_text('{"clip": "x"}')
    with pytest.raises(InputError, match="neither the journal"):
        company_of(tmp_path, lambda text: None)
    with pytest.raises(InputError, match="too long for a socket"):
        check_socket_path(Path("/" + "a" * 120))


@pytest.mark.process
def test_a_killed_process_goes_on(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    data = [write_data(tmp_path / f"{c}.npz", (c,), seed=c) for c in range(2)]
    devices = [
        Device(
            tmp_path / f"d{n}",
            tmp_path / "recipe.toml",
            {"data": str(data[n]), "mem": "1GB"},
            Settings(),
        )
        for n in range(2)
    ]
    one = server(tmp_path / "s", 2, [])
    killed = False
    for _ in range(60):
        asked = one.messages([0, 1])
        if one.is_over:
            asked = {n: m for n, m in asked.items() if one.devices[n].known != wire_none()}
            if not asked:
                break
        for node, content in asked.items():
            one.take(node, devices[node].answer(content, 60))
        if not one.is_over:
            one.close()
        if one.book.steps == 3 and not killed:
            _kill_tree(int((tmp_path / "d1" / "pid").read_text()))
            killed = True
    one.book.close()
    assert killed
    for number in range(2):
        _wait_for(tmp_path / f"d{number}" / "run" / "report.html")
    reap()
    assert bits(tmp_path / "d0" / "run") == bits(tmp_path / "d1" / "run")
    assert steps(tmp_path / "d0" / "run") == steps(tmp_path / "s")
    journal = (tmp_path / "d1" / "run" / "journal.jsonl").read_text().splitlines()
    assert json.loads(journal[0])["facts"]["cap_bytes"] == 10**9  # under its own --mem
    assert any('"kind":"resume"' in line for line in journal)


def wire_none() -> int:
    """Return the number of no round."""
    from edge_train.fleet.rounds import NONE

    return NONE


def _kill_tree(pid: int) -> None:
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    for one in [*map(int, children), pid]:
        os.kill(one, signal.SIGKILL)


def _wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    pid = int((path.parents[1] / "pid").read_text())
    while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < end:
        reap()
        time.sleep(0.05)
