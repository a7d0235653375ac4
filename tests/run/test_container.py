"""In a container a run's cap is at most what that can give, and what cannot fit is refused."""

from pathlib import Path

import pytest
from recipes import recipe_for

from edge_train.errors import InputError
from edge_train.memory.machine import Limit
from edge_train.memory.plan import Phase, Plan, PlanLine
from edge_train.run import container, survey

MEGABYTE = 10**6
BOX = Limit(350 * MEGABYTE, "cgroup v1", Path("/box"))


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch):
    monkeypatch.setattr(container, "caps_this_machine", lambda device: device != "cuda")


def test_a_cap_beyond_the_container_is_lowered_and_said():
    recipe, notes = container.fitted(recipe_for(cap_bytes=8000 * MEGABYTE), BOX)
    assert recipe.cap_bytes == BOX.room_bytes < BOX.bytes
    assert "this container has 350 MB, --mem 8 GB is more" in notes[0]


@pytest.mark.parametrize("cap_bytes", [200 * MEGABYTE, None])
def test_any_other_run_only_hears_of_the_container(cap_bytes):
    recipe, notes = container.fitted(recipe_for(cap_bytes=cap_bytes), BOX)
    assert recipe.cap_bytes == cap_bytes
    assert notes == ["this container has 350 MB of memory"]


def test_an_accelerators_memory_is_not_the_containers():
    asked = recipe_for(cap_bytes=8000 * MEGABYTE, device="cuda")
    assert container.fitted(asked, BOX) == (asked, [])
    beside = recipe_for(cap_bytes=8000 * MEGABYTE, host_cap_bytes=900 * MEGABYTE, device="cuda")
    lowered, _ = container.fitted(beside, BOX)
    assert lowered.cap_bytes == 8000 * MEGABYTE
    assert lowered.host_cap_bytes == BOX.room_bytes


def test_a_machine_with_less_is_a_note(monkeypatch):
    monkeypatch.setattr(container, "memory_limit", lambda: None)
    monkeypatch.setattr(container, "machine_bytes", lambda: 4000 * MEGABYTE)
    recipe, notes = container.fitted(recipe_for(cap_bytes=8000 * MEGABYTE))
    assert recipe.cap_bytes == 8000 * MEGABYTE
    assert "is more than this machine has, 4 GB" in notes[0]
    assert container.fitted(recipe_for(cap_bytes=3000 * MEGABYTE))[1] == []


def plan(megabytes):
    line = PlanLine("weights", megabytes * MEGABYTE)
    return Plan((Phase("train", (line,)),), "estimate")


def test_a_run_without_a_cap_that_its_container_cannot_hold_is_refused_with_the_limit():
    with pytest.raises(InputError, match=r"plan needs 900 MB, this container has 350 MB \(/box\)"):
        container.check_container(recipe_for(), plan(900), BOX)
    container.check_container(recipe_for(), plan(300), BOX)
    container.check_container(recipe_for(cap_bytes=200 * MEGABYTE), plan(900), BOX)


def test_a_plan_advises_no_cap_that_its_container_cannot_give():
    choice = survey.Choice({}, recipe_for(method="zo"), plan(900))
    found = survey.Survey(choice, (choice,), BOX.room_bytes, BOX)
    assert (
        "this container has 350 MB; start it with 1060MB of memory or more, and --mem 1000MB"
        in (found.refusal())
    )
    assert found.record()["container_bytes"] == BOX.bytes
    outside = survey.Survey(choice, (choice,), BOX.room_bytes)
    assert "a cap that does is --mem 1000MB" in outside.refusal()


@pytest.mark.parametrize(("left", "expected"), [(950, True), (800, False), (None, True)])
def test_a_plan_rehearses_only_what_its_container_can_hold(monkeypatch, left, expected):
    left_bytes = None if left is None else left * MEGABYTE
    monkeypatch.setattr(Limit, "left_bytes", lambda self: left_bytes)
    assert survey._can_rehearse(plan(900), BOX) is expected
    assert survey._can_rehearse(plan(900), None)
