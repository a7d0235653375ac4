"""A report has what its run said that it would take, beside what it took."""

from edge_train.records.history import summary_of

START = {"kind": "start", "facts": {"predicted_seconds": 40.0}, "eval": 0.2, "seconds": 5.0}
STEP = {"kind": "step", "loss": 0.2, "eval": None, "seconds": 2.0, "forwards": 1, "backwards": 0}
EVENT = {"kind": "event", "step": 2, "text": "by its first steps", "predicted_seconds": 60.0}
LONGER = {"kind": "extend", "step": 3, "steps": 900}


def predicted(*records):
    return summary_of(records)["predicted_seconds"]


def test_what_was_said_before_the_first_step_stands_until_it_is_corrected():
    steps = [{**STEP, "step": number} for number in range(3)]
    assert predicted(START, *steps) == 40.0
    assert predicted(START, *steps, EVENT) == 60.0
    assert predicted(START, *steps, EVENT, {"kind": "event", "step": 2, "text": "x"}) == 60.0
    assert predicted({**START, "facts": {}}, *steps) is None  # a run of earlier code


def test_a_run_that_was_made_longer_was_not_predicted():
    assert predicted(START, EVENT, LONGER) is None
