"""How a worker ended decides what the command does next: one table of all that can happen."""

import ast
import signal

import pytest
from places import ROOT

from edge_train.errors import INTERRUPTED
from edge_train.memory import supervisor
from edge_train.memory.ending import Ending, classify
from edge_train.memory.kills import AT_OUR_LIMIT
from edge_train.memory.link import ENDED_AT_ONCE, OUT_OF_MEMORY, Facts

CAP = 100_000_000
ABORT, SEGV, BUS, KILL = -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGKILL
TOLD = "45.6 MB more did not fit"

# promise: status, signals that were sent, facts, at which limit killed, ending, words
CASES = {
    "a status that the worker chose is the command's": [
        (0, (), Facts(CAP, loaded=True), "", Ending.PASSED_ON, ""),
        (2, (), Facts(), "", Ending.PASSED_ON, ""),
        (3, (), Facts(loaded=True, started=True), "", Ending.PASSED_ON, ""),
    ],
    "interrupted, it saves and says so itself": [
        (130, (signal.SIGINT,), Facts(loaded=True), "", Ending.PASSED_ON, ""),
    ],
    "told to stop, it is not started again, whatever it ended by or ran out of": [
        (status, (number,), facts, killed, Ending.INTERRUPTED, "")
        for number in (signal.SIGINT, signal.SIGTERM)
        for status, facts, killed in (
            (KILL, Facts(), ""),
            (KILL, Facts(loaded=True, shortage=TOLD), AT_OUR_LIMIT),
            (OUT_OF_MEMORY, Facts(loaded=True, started=True, shortage=TOLD), ""),
            (SEGV, Facts(CAP, loaded=True), ""),
            (ENDED_AT_ONCE, Facts(loaded=True, started=True), ""),
        )
    ],
    "told to stop by others than its parent, it is not started again either": [
        (ENDED_AT_ONCE, (), Facts(), "", Ending.INTERRUPTED, ""),
    ],
    "a signal that was sent on is no crash": [
        (-signal.SIGHUP, (signal.SIGHUP,), Facts(), "", Ending.ENDED_BY_SIGNAL, ""),
        (SEGV, (signal.SIGHUP,), Facts(CAP, loaded=True), "", Ending.ENDED_BY_SIGNAL, ""),
        (KILL, (signal.SIGQUIT,), Facts(shortage=TOLD), "", Ending.ENDED_BY_SIGNAL, ""),
    ],
    "a failure after a signal is still a failure": [
        (1, (signal.SIGINT,), Facts(loaded=True), "", Ending.CRASHED, ""),
    ],
    "the group's limit is a shortage, whatever else was told": [
        (KILL, (), Facts(), AT_OUR_LIMIT, Ending.OUT_OF_MEMORY, "memory group"),
        (KILL, (signal.SIGHUP,), Facts(), AT_OUR_LIMIT, Ending.OUT_OF_MEMORY, "memory group"),
        (KILL, (), Facts(shortage=TOLD), AT_OUR_LIMIT, Ending.OUT_OF_MEMORY, TOLD),
    ],
    "what the worker says did not fit is what did not fit": [
        (OUT_OF_MEMORY, (), Facts(shortage=TOLD), "", Ending.OUT_OF_MEMORY, TOLD),
        (3, (), Facts(loaded=True, shortage=TOLD), "", Ending.OUT_OF_MEMORY, TOLD),
        (1, (), Facts(shortage=TOLD), "", Ending.OUT_OF_MEMORY, TOLD),
    ],
    "the worker's own status for a shortage is never the command's": [
        (OUT_OF_MEMORY, (), Facts(), "", Ending.OUT_OF_MEMORY, "an allocation failed"),
    ],
    "libraries that do not load have found no memory, however they end": [
        (1, (), Facts(), "", Ending.OUT_OF_MEMORY, "did not load"),
        (127, (), Facts(), "", Ending.OUT_OF_MEMORY, "did not load"),
        (KILL, (), Facts(), "", Ending.OUT_OF_MEMORY, "did not load"),
    ],
    "an engine that gives up above half of the cap has run out of it": [
        (ABORT, (), Facts(CAP // 2 + 1, loaded=True), "", Ending.OUT_OF_MEMORY, "gave up"),
        (127, (), Facts(CAP // 2 + 1, loaded=True), "", Ending.OUT_OF_MEMORY, "gave up"),
        (ABORT, (), Facts(CAP // 2, loaded=True), "", Ending.CRASHED, ""),
        (127, (), Facts(CAP // 2, loaded=True), "", Ending.CRASHED, ""),
    ],
    "a crash above half of the cap is taken for a shortage": [
        (SEGV, (), Facts(CAP // 2 + 1, loaded=True), "", Ending.OUT_OF_MEMORY, "crashed"),
        (BUS, (), Facts(CAP // 2 + 1, loaded=True), "", Ending.OUT_OF_MEMORY, "crashed"),
        (SEGV, (), Facts(CAP // 2, loaded=True), "", Ending.CRASHED, ""),
    ],
    "a library that ends the process above half of the cap has run out of it": [
        (1, (), Facts(CAP // 2 + 1, loaded=True), "", Ending.OUT_OF_MEMORY, "as OpenBLAS does"),
        (1, (), Facts(CAP // 2, loaded=True), "", Ending.CRASHED, ""),
        (1, (signal.SIGINT,), Facts(CAP, loaded=True), "", Ending.CRASHED, ""),
    ],
    "any other end is a crash, whatever is held": [
        (KILL, (), Facts(CAP, loaded=True), "", Ending.CRASHED, ""),
        (1, (), Facts(CAP, loaded=True, failed=True), "", Ending.CRASHED, ""),
    ],
}


@pytest.mark.parametrize("promise", CASES)
def test_an_ending_is_told_from_status_and_facts(promise):
    for status, sent, facts, killed, ending, words in CASES[promise]:
        found, shortage = classify(status, sent, facts, killed, CAP)
        assert found is ending, (status, sent, killed)
        assert (words in shortage) if words else shortage == ""


def test_every_fact_that_is_told_has_a_place_in_the_record():
    told = set()
    for path in (ROOT / "edge_train").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("link.tell"):
                told |= {word.arg for word in node.keywords}
    assert told == set(Facts.__slots__) - {"peak_bytes", "lock"}
    with pytest.raises(AttributeError):
        Facts().hear({"unknown": 1})


# ---- what the parent does next ----------------------------------------------------------------


@pytest.fixture
def ends(monkeypatch):
    """Return a function that runs attempts whose workers end as listed; `asked` is their words."""

    def attempts(*listed, arguments=("run",), talk=()):
        left, attempts.asked = list(listed), []

        def worker(arguments, words, group):
            attempts.asked.append((list(arguments), dict(words["changes"]), words["reason"]))
            return left.pop(0)

        monkeypatch.setattr(supervisor, "_worker", worker)
        status = supervisor._attempts(arguments, CAP, True, None, talk)
        assert not left
        return status

    return attempts


def short(**told):
    return OUT_OF_MEMORY, (), Facts(loaded=True, planned=True, shortage=TOLD, **told)


def test_after_a_shortage_the_next_smaller_way_is_tried_and_told_why(ends):
    done = (0, (), Facts(loaded=True))
    assert ends(short(smaller={"batch_limit": 1}), short(smaller={"previews": False}), done) == 0
    assert [changes for _, changes, _ in ends.asked] == [
        {},
        {"batch_limit": 1},
        {"batch_limit": 1, "previews": False},
    ]
    assert [reason for *_, reason in ends.asked] == ["", TOLD, TOLD]


def test_a_way_that_was_tried_is_not_tried_again(ends, capsys):
    same = short(smaller={"batch_limit": 1})
    assert ends(same, same) == 2
    assert "nothing smaller is left to try" in capsys.readouterr().err


def test_an_engine_that_has_room_is_named_before_a_cap_for_this_one(ends, capsys):
    told = {"needs_bytes": 528_000_000, "instead": "--runtime numpy (plan needs 112 MB)"}
    assert ends(short(**told)) == 2
    said = capsys.readouterr().err
    assert "nothing smaller is left to try on this engine. Try --runtime numpy" in said
    assert "or on this one try --mem 630MB;" in said


def test_before_its_libraries_are_counted_nothing_smaller_would_help(ends, capsys):
    early = OUT_OF_MEMORY, (), Facts(shortage=TOLD, smaller={"batch_limit": 1})
    assert ends(early) == 2
    assert f"not known, {TOLD}" in capsys.readouterr().err


def test_a_run_folder_is_gone_on_with_and_not_begun_again(ends):
    done = (0, (), Facts(loaded=True))
    first = short(smaller={"batch_limit": 1}, folder="runs/x")
    assert ends(first, done, arguments=("run", "photos", "--mem", "1GB")) == 0
    assert ends.asked[1][0] == ["run", "--resume", "runs/x"]


def test_after_a_restart_it_talks_as_it_was_asked_to(ends):
    done, talk = (0, (), Facts(loaded=True)), ["--json", "--tongue=de"]
    first = short(smaller={"batch_limit": 1}, folder="runs/x")
    assert ends(first, done, arguments=("run", *talk, "--mem=1GB"), talk=talk) == 0
    assert ends.asked[1][0] == ["run", "--resume", "runs/x", *talk]


def test_out_of_memory_after_training_began_can_be_resumed(ends, capsys):
    assert ends(short(started=True, folder="runs/x")) == 3
    assert "edge-train run --resume runs/x" in capsys.readouterr().err


def test_a_run_that_goes_on_and_was_not_made_longer_yet_is_gone_on_with_by_what_was_typed(
    ends, capsys
):
    typed = ("run", "--resume", "my run", "--steps", "6", "--mem", "140MB", "--mem=150MB")
    command = "`edge-train run --resume 'my run' --steps 6`"
    assert ends(short(started=True), arguments=typed) == 3
    assert f"with {command}." in capsys.readouterr().err
    assert ends((KILL, (), Facts(loaded=True, started=True)), arguments=typed) == 3
    assert f"go on with {command}." in capsys.readouterr().err


def test_a_command_to_go_on_names_the_code_that_a_folder_is_not_believed(ends, capsys):
    code = {"folder": "runs/x", "code": ["--module=mine:make"]}
    assert ends(short(started=True, **code)) == 3
    assert "`edge-train run --resume runs/x --module=mine:make`" in capsys.readouterr().err


def test_under_a_cap_too_small_to_plan_a_run_that_goes_on_advises_what_it_was_planned_to_need(
    capsys,
):
    early, arguments = Facts(shortage=TOLD), ["run", "--resume", "runs/x"]
    assert supervisor._give_up(arguments, CAP, TOLD, early, None, 468_000_000) == 2
    said = capsys.readouterr().err
    assert "plan needs 468 MB" in said and "Try --mem 570MB;" in said
    assert supervisor._give_up(arguments, CAP, TOLD, early, None) == 2
    assert "Try --mem 140MB;" in capsys.readouterr().err


def test_a_crash_names_its_signal_and_the_folder(ends, capsys):
    assert ends((KILL, (), Facts(loaded=True, started=True, folder="runs/x"))) == 3
    said = capsys.readouterr().err
    assert "signal 9 (SIGKILL)" in said and "edge-train run --resume runs/x" in said
    assert ends((1, (), Facts(loaded=True))) == 2
    assert "before the first step" in capsys.readouterr().err


def test_a_signal_is_the_shells_status_for_it(ends):
    assert ends((-signal.SIGHUP, (signal.SIGHUP,), Facts())) == 128 + signal.SIGHUP


def test_told_to_stop_while_memory_ran_out_no_smaller_way_is_tried(ends, capsys):
    status, _, facts = short(smaller={"batch_limit": 1})
    assert ends((status, (signal.SIGTERM,), facts)) == INTERRUPTED
    assert capsys.readouterr().err == "edge-train: interrupted.\n"
