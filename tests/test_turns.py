"""Layers that take turns: a turn is taken once, and again after a run went back over it."""

import numpy as np
import pytest
from quadratic import QuadraticRuntime
from recipes import recipe_for

from edge_train.arrays.parameters import Parameters
from edge_train.estimators.backprop import Backprop
from edge_train.methods import schedules
from edge_train.methods.block_schedules import layer_of
from edge_train.optim.layer_draws import LayerDraws
from edge_train.records import journal

EVERY, STEPS = 3, 30
TIMES = {"outlier_times": 13.0}
LAYERS = ("a.0", "a.1", "a.2")


class Turning(QuadraticRuntime):
    """A runtime of three layers and a head that counts how often it is told who rests."""

    def __init__(self, poison=()):
        blocks = {f"{layer}.w": np.ones((1, 3), np.float32) for layer in LAYERS}
        super().__init__({**blocks, "head": np.ones((1, 3), np.float32)}, poison)
        self.told = []

    def rest(self, names):
        self.told.append(frozenset(names))


def turns():
    return LayerDraws(layer_of, dict.fromkeys(LAYERS, 0.0), 1, EVERY, seed=0)


def resting(step, schedule):
    return frozenset(layer for layer in LAYERS if not schedule.trains(step, f"{layer}.w"))


CHANGES = [s for s in range(1, STEPS) if resting(s, turns()) != resting(s - 1, turns())]


def trained(make_loop, folder, poison=(), **options):
    loop = make_loop(
        folder, estimator=Backprop(), runtime=Turning(poison), schedule=turns(), **options
    )
    loop.fit(STEPS)
    return loop


def test_a_turn_is_taken_only_when_other_blocks_rest(make_loop, tmp_path):
    told = trained(make_loop, tmp_path).runtime.told
    found = [resting(step, turns()) for step in (0, *CHANGES)]
    assert told == [frozenset(f"{layer}.w" for layer in layers) for layers in found]
    assert 3 < len(CHANGES) < STEPS / EVERY


@pytest.mark.parametrize("bad", [CHANGES[0], CHANGES[1], CHANGES[1] + 1])
@pytest.mark.parametrize("share", [1e9, 1e-9], ids=["saved at each step", "saved at the start"])
def test_going_back_over_a_turn_leads_to_the_bits_of_its_journal(
    make_loop, tmp_path, monkeypatch, bad, share
):
    """The bad step may be the first of a turn, so that the turn was taken and must be again."""
    monkeypatch.setattr("edge_train.loop._SAVING_SHARE", share)
    whole = trained(make_loop, tmp_path / "whole", {bad}, checkpoint_seconds=0.0)
    records, _ = journal.read(tmp_path / "whole" / "journal.jsonl")
    steps = [journal.step_record(record) for record in records[1:]]
    assert steps[bad].skipped and not any(s.skipped for s in steps if s.step != bad)
    again = make_loop(
        tmp_path / "again", estimator=Backprop(), runtime=Turning({bad}), schedule=turns()
    )
    again.catch_up(steps)
    for name, block in whole.runtime.parameters.items():
        np.testing.assert_array_equal(again.runtime.parameters[name], block)
    held = {layer_of(name) for name, state in whole.state.items() if state}
    assert len(held) == 2  # a layer, and what belongs to none


def test_passes_of_measured_inputs_are_told():
    recipe = recipe_for("classify", block_schedule="owlore", samples=5, options=TIMES)
    weights = Parameters({"a.0.w": np.ones((4, 3), np.float32)})

    class Runtime:
        parameters = weights
        seen = 0

        def inputs(self, batch):
            self.seen += batch
            yield "a.0.w", (np.ones(3), False)

    class Task:
        def batch(self, key):
            return 5

    runtime = Runtime()
    scores, passes = schedules.get("owlore").measure(recipe, runtime, Task())
    assert scores == {"a.0": 0.0}
    assert passes == runtime.seen == 20
