"""A run with a time ends in it, whatever happens to the pace, and on a clock that a test sets."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edge_train import cli
from edge_train.errors import InputError
from edge_train.methods.exact import rate_of
from edge_train.optim.tail_mean import TailMean
from edge_train.recipe import Recipe
from edge_train.records import journal
from edge_train.run import timing
from edge_train.run.pace import Prediction
from edge_train.run.timing import Measured, Timing, check_first_step, timed_by
from edge_train.tasks import tasks
from edge_train.tasks.job import FitsATime


class Clock:
    """The monotonic clock of a test; `perf_counter` of `timing`."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.time, "process_time", lambda: 1e9)


class Loop:
    """What `Timing` asks of a loop."""

    def __init__(self, steps):
        self.steps, self.next_step, self.fits = steps, 0, []
        self.journal = SimpleNamespace(append=self.fits.append)

    def follow(self, transform):
        """Do nothing."""


def take(clock, pace, seconds=100.0, asked=10**6, reserve=3.0, report=0.001, ends=None):
    """Take steps as a run does, each of `pace(step)` seconds; return the loop and the end.

    With `ends`, the end takes so long and not `reserve`, and every tenth step has an evaluation
    from which that can be told.
    """

    def write():
        clock.now += report * (1 + loop.next_step / 1000)

    loop, began = Loop(asked), clock.now
    found = Measured(evaluation=0.1, after=reserve, save=0.0, spent=0.0, step=0.05)
    one = Timing(
        seconds=seconds, used=0.0, began=began, asked=asked, found=found, every=50, step=0.05,
        fits=(), updates=0, report=write, rule=lambda fits: None, say=lambda text: None,
        tell=lambda steps: None,
    )  # fmt: skip
    clock.now += 2.0  # until the first step
    one.start(loop)
    while loop.next_step < loop.steps:
        took, evaluated = (
            pace(loop.next_step),
            ends and (loop.next_step % 10 == 9 or loop.next_step + 1 == loop.steps),
        )
        took += 0.1 * ends / reserve if evaluated else 0.0
        clock.now += took
        record = SimpleNamespace(step=loop.next_step, seconds=took, skipped=None, eval=None)
        record.eval = 1.0 if evaluated else None
        loop.next_step += 1
        one.stepped(loop, record)
    write()
    return loop, clock.now + (ends or reserve) - began


@pytest.mark.parametrize(
    "pace",
    [
        lambda step: 0.01,
        lambda step: 0.5,
        lambda step: 12.0,
        lambda step: 0.05 if step < 300 else 0.4,  # another program begins
        lambda step: 0.4 if step < 60 else 0.02,  # or ends
        lambda step: 0.05 * (1 + step / 200),  # the processor gets hot
        lambda step: 2.0 if step % 10 == 9 else 0.05,  # evaluations that take long
    ],
)
def test_no_run_ends_late_whatever_its_pace_does(monkeypatch, pace):
    loop, end = take(Clock(monkeypatch), pace)
    assert end <= 100.0
    assert end >= 70.0  # and most of the time was used
    assert loop.fits[-1]["steps"] == loop.next_step
    assert len(loop.fits) <= 25


def test_a_run_whose_steps_all_fit_takes_no_more_of_them(monkeypatch):
    loop, end = take(Clock(monkeypatch), lambda step: 0.05, asked=100)
    assert loop.next_step == 100
    assert end < 20
    assert {record["steps"] for record in loop.fits} == {100}


def test_a_start_that_was_slow_by_chance_does_not_end_a_run(monkeypatch):
    loop, end = take(Clock(monkeypatch), lambda step: 0.05, reserve=64.0, ends=5.0)
    assert loop.next_step > 100
    assert end <= 100.0


def test_a_time_for_not_one_step_is_refused_before_it():
    work = {"start": 1, "evaluation": 1, "evaluations": 2, "step": 4, "steps": 9, "after": 10}
    found = timed_by(work, evaluation=2.0, save=0.0, spent=5.0)
    assert (found.step, found.after) == (8.0, 20.0)
    check_first_step(60.0, found)
    with pytest.raises(InputError, match=r"no step fits into 40s .*Try --time \d+s"):
        check_first_step(40.0, found)


def test_a_schedule_is_fitted_and_steps_before_keep_their_rates():
    recipe = Recipe(steps=1000, schedule="cosine", warmup=100)
    before = rate_of(recipe, 1.0, 0.1)
    fitted = rate_of(replace(recipe, fits=((0, 500), (200, 300))), 1.0, 0.1)
    shorter = rate_of(replace(recipe, steps=500, warmup=50), 1.0, 0.1)
    assert [fitted.share(n) for n in range(200)] == [shorter.share(n) for n in range(200)]
    assert fitted.share(300) == pytest.approx(0.1)
    assert before.share(300) > 0.8


def test_the_mean_of_the_last_iterates_is_of_all_that_were_in_its_sum():
    rule, param = TailMean(((0, 100),), ((0, 8), (7, 9), (8, 10))), np.zeros(1, np.float32)
    state = rule.init(param)
    for _ in range(10):
        param = param - rule.update(np.ones(1, np.float32), state, param)
    # iterates -7 (the tail of 8 begins), -8 ... : it goes on while the end moves away
    assert state["summed"][0] == 4
    assert param[0] == pytest.approx(-8.5)


@pytest.fixture
def words(tmp_path):
    """Return the words of a run that would take minutes."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((80, 3))
    table = np.column_stack([rows, rows.sum(axis=1) > 0])
    path = tmp_path / "table.csv"
    np.savetxt(path, table, "%.6f,%.6f,%.6f,%d", header="a,b,c,label", comments="")
    network = ("--task", "network", "--network", "mlp 6", "--method", "backprop")
    return [str(path), *network, "--schedule", "cosine", "--steps", "1000000"]


def test_a_run_ends_by_its_time_and_is_redone_to_the_same_bits(words, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["run", *words, "--time", "4s", "--out", str(run)]) == 0
    report = json.loads((run / "report.json").read_text())
    assert (report["status"], report["ended_by_time"], report["time_seconds"]) == ("done", True, 4)
    assert 0 < report["steps"] < 1_000_000
    assert "ended by its time of 4s" in (run / "report.html").read_text()
    records = list(journal.read(run / "journal.jsonl")[0])
    fits = [r["steps"] for r in records if r["kind"] == "fit"]
    assert fits[-1] == report["steps"]
    killed = tmp_path / "killed"
    shutil.copytree(run, killed)
    book = killed / "journal.jsonl"
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(b"".join(line for line in lines if b'"kind":"end"' not in line))
    for path in (killed / "checkpoints").glob("step-*.safetensors"):
        if not path.stem.endswith("-0") and not path.stem.endswith("0" * 6):
            path.unlink()
    (killed / "network.safetensors").unlink()
    assert cli.main(["run", "--resume", str(killed)]) == 0  # its time is over: only the end
    assert json.loads((killed / "report.json").read_text())["steps"] == report["steps"]
    name = "network.safetensors"
    assert (killed / name).read_bytes() == (run / name).read_bytes()
    capsys.readouterr()
    assert cli.main(["run", "--resume", str(run)]) == 0
    assert "this run is finished" in capsys.readouterr().err
    assert cli.main(["run", "--resume", str(run), "--time", "9s"]) == 0
    longer = json.loads((run / "report.json").read_text())
    assert longer["steps"] > report["steps"]
    assert longer["time_seconds"] == 9


def test_a_plan_says_how_many_steps_fit(words, capsys, monkeypatch):
    assert cli.main(["plan", *words, "--time", "60s"]) == 0
    assert "of 1000000 steps fit into" in capsys.readouterr().out
    assert cli.main(["plan", *words, "--time", "60s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 1 < found["steps_in_time"] < 1_000_000
    monkeypatch.setattr(Prediction, "steps_within", lambda predicted, seconds: 0)  # a slow machine
    assert cli.main(["plan", *words, "--time", "1s"]) == 2
    assert "no step fits into 1s" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["30", "soon", "0s", "0.2s", "-5m", "9999h", ""])
def test_what_is_no_time_is_refused_by_a_sentence(words, text, capsys):
    assert cli.main(["plan", *words, f"--time={text}"]) == 2
    said = capsys.readouterr().err
    assert any(word in said for word in ("90s, 30m or 2h", "time_seconds is 0.2", "is empty"))


def test_a_method_that_shares_its_steps_out_takes_no_time(words, capsys):
    words[words.index("backprop")] = "tpsgd"
    assert cli.main(["plan", *words, "--mode", "sequential", "--time", "1m"]) == 2
    assert "--time is not for this run" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["classify", "images", "network", "module"])
def test_every_task_can_be_fitted_to_a_time(task):
    from edge_train.registry import load

    assert issubclass(load(tasks.get(task).job), FitsATime)


def test_a_language_model_can_be_fitted_to_a_time_also_where_its_job_is_chosen():
    from edge_train.tasks.language_model.job import LanguageModelJob
    from edge_train.tasks.language_model.two_models import TwoModelsJob

    assert issubclass(LanguageModelJob, FitsATime)
    assert issubclass(TwoModelsJob, FitsATime)
