"""A run in one sentence: what it took, what it held, and what is still to do."""

from typing import Any

import pytest

from edge_train.report.numbers import numbers, sentence

GB = 10**9


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "status": "done",
        "steps": 40,
        "seconds_total": 46.0,
        "seconds_per_step": 1.0,
        "measured_peak_bytes": 556_000_000,
        "cap_bytes": 8 * GB,
        "forwards": 40,
        "backwards": 0,
        "metrics": {},
        "eval": {"first": 2.0, "best": 1.0, "best_step": 40, "last": 1.0},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Learned in 46s, held 556 MB of 8 GB."),
        ({"cap_bytes": None}, "Learned in 46s, held 556 MB."),
        ({"measured_peak_bytes": None}, "Learned in 46s."),
        (
            {"status": "running"},
            "Not finished: 40 of 300 steps so far in 46s, held 556 MB of 8 GB.",
        ),
        ({"status": "stopped"}, "Stopped after 40 of 300 steps in 46s, held 556 MB of 8 GB."),
        ({"status": "interrupted"}, "Stopped after 40 of 300 steps in 46s, held 556 MB of 8 GB."),
        (
            {"status": "over cap", "measured_peak_bytes": 9 * GB},
            "Failed after 46s, held 9 GB of 8 GB: more than its cap.",
        ),
    ],
)
def test_a_run_is_told_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    assert sentence(summary(**changes), 300) == words


def records(steps: object) -> list[dict[str, Any]]:
    return [{"kind": "start", "facts": {"steps_planned": steps}}]


@pytest.mark.parametrize(
    ("status", "command"),
    [
        ("running", "edge-train report ."),
        ("interrupted", "edge-train run --resume ."),
        ("stopped", "edge-train run --resume ."),
        ("over cap", "--mem"),
    ],
)
def test_what_is_not_finished_names_the_next_command(status: str, command: str) -> None:
    assert command in numbers(summary(status=status), records(300))
    assert command not in numbers(summary(), records(300))


def test_predicted_seconds_stand_beside_what_it_took() -> None:
    assert "50s were predicted" in numbers(summary(predicted_seconds=50.0), records(40))


def test_a_number_of_steps_that_is_none_is_left_out() -> None:
    assert "planned" in numbers(summary(), records(300))
    assert "planned" not in numbers(summary(), records("many"))
