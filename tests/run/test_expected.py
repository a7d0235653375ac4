"""A run says how long it takes by its first evaluation, and corrects that by its first steps."""

import pytest

from edge_train.protocols import StepRecord
from edge_train.run.expected import Expected

# 1 s an evaluation, 2 s a step, 3 s at the end, on the machine where work is counted.
WORK = {"start": 9.0, "evaluation": 1.0, "evaluations": 5.0, "step": 2.0, "steps": 40.0}
WORK |= {"after": 3.0}


def record(step, seconds, loss=None):
    return StepRecord(step, 0.0, (), 0, 0, 0, 0, seconds, eval=loss)


def test_the_first_evaluation_says_how_fast_this_machine_is():
    assert Expected(WORK, 10.0, 1.0).seconds == pytest.approx(10 + 4 + 80 + 3)
    assert Expected(WORK, 10.0, 3.0).seconds == pytest.approx(10 + 3 * (4 + 80 + 3))


def test_steps_that_take_as_long_as_expected_change_nothing():
    expected = Expected(WORK, 10.0, 1.0)
    assert [expected.corrected(record(step, 2.1)) for step in range(40)] == [None] * 40


def test_steps_that_take_longer_are_said_once():
    expected = Expected(WORK, 10.0, 1.0)
    assert expected.corrected(record(0, 9.0)) is None  # the first makes buffers
    assert expected.corrected(record(1, 4.0)) is None
    found = expected.corrected(record(2, 4.0))
    # ten and seventeen seconds are over; 37 steps, their share of evaluations, and the end
    assert found == pytest.approx(27 + 37 * 4 + 37 / 40 * 4 + 3)
    assert expected.corrected(record(3, 50.0)) is None


def test_short_steps_are_believed_after_a_tenth_of_them():
    expected = Expected(WORK, 10.0, 1.0)
    said = [expected.corrected(record(step, 0.1)) for step in range(5)]
    assert [one is not None for one in said] == [False, False, False, True, False]


def test_a_step_with_an_evaluation_says_nothing_of_the_others():
    expected = Expected(WORK, 10.0, 1.0)
    said = [expected.corrected(record(step, 30.0, loss=1.0)) for step in range(6)]
    assert said == [None] * 6
