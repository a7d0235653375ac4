"""Every task makes a fleet or is refused in one sentence; each engine ends with the same bits."""

import time

import pytest
from fleet_tasks import CASES, SHARED, SLOW, STEPS, learned
from fleets import finish, server, steps

from edge_train.errors import InputError
from edge_train.fleet.averaging import Average
from edge_train.fleet.grid import LocalDevice, LocalGrid
from edge_train.fleet.init import init
from edge_train.fleet.server import Server
from edge_train.recipe import to_toml
from edge_train.tasks import recipe_of, tasks


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES]
)
def test_two_devices_end_with_the_same_bits(tmp_path, case):
    name, shared, data, more = CASES[case]
    values = {"task": name, **SHARED, **shared(tmp_path), **more}
    source = tmp_path / "recipe.toml"
    source.write_text(to_toml(recipe_of(values, "")))
    init(source, tmp_path / "app")  # takes it
    devices = {}
    for number in range(2):
        own = {tasks.get(name).data: data(tmp_path, number)}
        recipe = recipe_of({**values, **own}, "")
        devices[number] = LocalDevice(recipe, tmp_path / f"d{number}")
        # one after the other: transformers loads a model in one thread at a time
        while not devices[number].calls.listening.wait(1):
            assert devices[number].thread.is_alive(), devices[number].error

    def look() -> None:
        assert [one.error for one in devices.values()] == ["", ""]
        assert any(one.thread.is_alive() for one in devices.values())
        time.sleep(0.05)

    finish(server(tmp_path / "s", 2, []), LocalGrid(devices), look, wait=60)
    assert learned(tmp_path / "d0") == learned(tmp_path / "d1")
    assert steps(tmp_path / "d0") == steps(tmp_path / "d1") == steps(tmp_path / "s")
    assert len(steps(tmp_path / "s")) == STEPS


@pytest.mark.slow
def test_another_quantisation_takes_part_in_a_mixed_fleet(tmp_path):
    """Adapters over a base in INT8 learn with those over float32, weighted by slope checks."""
    name, shared, data, _ = CASES["language-model, torch"]
    values = {"task": name, **SHARED, **shared(tmp_path)}
    for mixed in (False, True):
        devices = {}
        for number, quant in enumerate(("none", "int8")):
            own = {"data": data(tmp_path, number), "quant": quant}
            folder = tmp_path / f"{mixed}-{number}"
            devices[number] = LocalDevice(recipe_of({**values, **own}, ""), folder)
            while not devices[number].calls.listening.wait(1):
                assert devices[number].thread.is_alive(), devices[number].error
        quorum = 2 if mixed else 1
        place = tmp_path / f"s-{mixed}"
        place.mkdir()
        one = Server(place, Average(), quorum, lambda text: None, mixed=mixed)
        finish(one, LocalGrid(devices), lambda: time.sleep(0.05), wait=60)
        if mixed:
            assert [device.error for device in devices.values()] == ["", ""]
            assert learned(tmp_path / "True-0") == learned(tmp_path / "True-1")
            weights = [device.weight for device in one.devices.values()]
            assert all(0 < weight <= 1 for weight in weights)
            assert weights[0] != weights[1]
        else:
            refused = [device.error for device in devices.values() if device.error]
            assert len(refused) == 1
            assert "quant" in refused[0] or "model_sha256" in refused[0]


@pytest.mark.parametrize("name", sorted(tasks.names()))
def test_a_task_makes_a_fleet_or_says_why_not(tmp_path, name):
    source = tmp_path / "recipe.toml"
    source.write_text(f'task = "{name}"\nmethod = "zo"\nsteps = 4\n')
    if name in {one[0] for one in CASES.values()} - {"network"}:
        assert "trains it" in init(source, tmp_path / "app")
        return
    with pytest.raises(InputError) as error:
        init(source, tmp_path / "app")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "app").exists()
    assert "fleet" in str(error.value) or "standardization" in str(error.value)
