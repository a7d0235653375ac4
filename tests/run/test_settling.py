"""A run whose gradients are noise ends soon: its journal says where, and no kill changes it."""

from types import SimpleNamespace

import numpy as np
import pytest

from edge_train.methods.exact import rate_of
from edge_train.recipe import Recipe
from edge_train.records.longer import length_of
from edge_train.run.settling import NOISE, Settling, ends_by_noise, open_settling, tail


class Rule:
    """A rule that sees noise after so many steps of a loop."""

    def __init__(self, after):
        self.after = after

    def init(self, param):
        return {}

    def update(self, update, state, param):
        return update

    def is_noise(self, state):
        return state["count"] >= self.after


class Loop:
    """What `Settling` asks of a loop."""

    def __init__(self, steps, after, blocks=("token",)):
        self.steps, self.next_step, self.records = steps, 0, []
        self.journal = SimpleNamespace(append=self.records.append)
        self.runtime = SimpleNamespace(parameters=blocks)
        self.rules = dict.fromkeys(blocks, Rule(after))
        self.state = {name: {"count": 0} for name in blocks}
        self.followed = []

    def follow(self, fits):
        self.followed.append(fits)

    def take(self):
        self.next_step += 1
        for state in self.state.values():
            state["count"] += 1
        self.records.append({"kind": "step"})


def observer():
    said = []
    return SimpleNamespace(said=said.append, lines=said)


def settling(records=()):
    return open_settling(records, lambda fits: fits, observer(), None)


def run(loop, one, steps=10**6):
    one.start(loop)
    while loop.next_step < min(loop.steps, steps):
        loop.take()
        one.stepped(loop, SimpleNamespace(skipped=None))


def test_a_run_ends_a_third_later_than_its_gradients_are_noise():
    loop, one = Loop(400, after=60), settling()
    run(loop, one)
    assert loop.next_step == 60 + tail(60) == 80
    [record] = [r for r in loop.records if r["kind"] == "fit"]
    assert record == {"kind": "fit", "step": 60, "steps": 80, "why": NOISE}
    assert loop.followed == [((60, 80),)]
    assert one.sentence(loop) == "gradients were noise by then: ended after 80 steps"


def test_a_run_whose_gradients_are_none_takes_all_its_steps():
    loop, one = Loop(50, after=100), settling()
    run(loop, one)
    assert loop.next_step == 50
    assert one.sentence(loop) is None


def test_a_tail_that_is_longer_than_the_run_changes_nothing():
    loop = Loop(70, after=60)
    run(loop, settling())
    assert loop.next_step == 70
    assert loop.followed == []


@pytest.mark.parametrize("killed", [59, 60, 61, 79])
@pytest.mark.parametrize("loses_the_record", [False, True])
def test_a_run_that_was_killed_ends_where_it_would_have(killed, loses_the_record):
    loop = Loop(400, after=60)
    run(loop, settling(), killed)
    records = loop.records
    if loses_the_record and records[-1]["kind"] == "fit":
        records = records[:-1]  # the last step is in the journal, what follows from it is not
    again = Loop(400, after=60)
    again.records += records
    for _ in range(killed):
        again.take()
        again.records.pop()
    run(again, settling(records))
    assert again.next_step == 80
    assert [r for r in again.records if r["kind"] == "fit"] == [
        {"kind": "fit", "step": 60, "steps": 80, "why": NOISE}
    ]
    assert length_of(again.records).fits == ((60, 80),)


def test_a_run_that_was_made_longer_takes_the_steps_that_were_asked_for():
    records = [{"kind": "start", "facts": {"steps_planned": 400}}]
    records += [{"kind": "step"}] * 60
    records += [{"kind": "fit", "step": 60, "steps": 80, "why": NOISE}]
    records += [{"kind": "step"}] * 20
    assert ends_by_noise(records) == 80
    assert settling([*records, {"kind": "extend", "step": 80, "steps": 200}]) is None


def test_a_run_that_is_made_longer_has_a_rate_again():
    recipe = Recipe(steps=200, schedule="linear", fits=((60, 80),), spans=((0, 400), (80, 200)))
    rate = rate_of(recipe, 1.0, 0.0)
    assert rate.share(59) == pytest.approx(1 - 59 / 400)
    assert rate.share(60) == pytest.approx(1 - 60 / 80)
    assert rate.share(100) == pytest.approx(1 - 100 / 200)


def test_a_run_of_a_time_plans_no_further_than_to_the_end():
    loop, timing = Loop(400, after=60), SimpleNamespace(fits=((0, 300),), asked=400)
    one = Settling(lambda fits: fits, observer(), ((0, 300),), 0, None, timing)
    run(loop, one)
    assert timing.asked == 80
    assert timing.fits == ((0, 300), (60, 80))


def test_all_blocks_have_to_be_noise():
    loop = Loop(400, after=60, blocks=("token", "token_2"))
    loop.rules["token_2"] = Rule(90)
    run(loop, settling())
    assert loop.next_step == 90 + tail(90)
    assert np.ceil(90 / 3) == tail(90)
