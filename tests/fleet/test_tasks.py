"""Every task makes a fleet or is refused in one sentence; each engine ends with the same bits."""

import time

import pytest
from fleet_tasks import CASES, SHARED, STEPS, learned
from fleets import finish, server, steps

from edge_train.errors import InputError
from edge_train.fleet.grid import LocalDevice, LocalGrid
from edge_train.fleet.init import init
from edge_train.recipe import to_toml
from edge_train.tasks import recipe_of, tasks


@pytest.mark.parametrize("case", CASES)
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
        assert devices[number].calls.listening.wait(120), devices[number].error

    def look() -> None:
        assert [one.error for one in devices.values()] == ["", ""]
        assert any(one.thread.is_alive() for one in devices.values())
        time.sleep(0.05)

    finish(server(tmp_path / "s", 2, []), LocalGrid(devices), look, wait=60)
    assert learned(tmp_path / "d0") == learned(tmp_path / "d1")
    assert steps(tmp_path / "d0") == steps(tmp_path / "d1") == steps(tmp_path / "s")
    assert len(steps(tmp_path / "s")) == STEPS


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
