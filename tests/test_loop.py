"""The loop learns, records, rolls back, settles, stops and resumes to the same bits."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from quadratic import QuadraticRuntime, QuadraticTask

from edge_train.errors import RunFolderError, TrainingStopped
from edge_train.estimators.backprop import Backprop
from edge_train.estimators.gauss_newton import GaussNewton
from edge_train.estimators.zo import ZerothOrder
from edge_train.formats.tensor_store import StoredTensors
from edge_train.loop import ESTIMATOR, SELECTION
from edge_train.optim.norm_limit import NormLimit
from edge_train.optim.pull import Pull
from edge_train.optim.tail_mean import TailMean
from edge_train.optim.transforms import Chain, LearningRate, Momentum
from edge_train.protocols import StepRecord
from edge_train.records import checkpoint, journal

METHODS = {"zo": ZerothOrder(0.01, {"token": 1.0}), "backprop": Backprop()}


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def estimator(request):
    return request.param


def resumed(make_loop, folder, estimator, **options):
    """Return a loop brought to the end of the folder's journal."""
    records, intact = journal.read(folder / "journal.jsonl")
    steps = [journal.step_record(r) for r in records[1:]]
    loop = make_loop(folder, estimator=estimator, keep=intact, **options)
    return loop, loop.catch_up(steps)


def test_training_lowers_the_evaluation_and_keeps_the_best(make_loop, estimator):
    loop = make_loop(estimator=estimator)
    assert loop.fit(60) == "done"
    assert loop.evals[-1] < 0.4
    assert loop.best.loss == min(loop.evals)
    assert loop.next_step == 60


def test_journal_has_one_record_a_step(make_loop, estimator, tmp_path):
    make_loop(estimator=estimator).fit(12)
    records, _ = journal.read(tmp_path / "journal.jsonl")
    steps = [journal.step_record(r) for r in records[1:]]
    assert [s.step for s in steps] == list(range(12))
    assert [s.step for s in steps if s.eval is not None] == [4, 9, 11]
    assert all(s.forwards > 0 and s.seconds > 0 and s.peak_bytes > 0 for s in steps)


@pytest.mark.parametrize("cut", [0, 1, 7, 13, 30])
def test_a_resumed_run_ends_with_the_same_bits(make_loop, estimator, tmp_path, cut):
    whole = make_loop(tmp_path / "whole", estimator=estimator, checkpoint_seconds=0.0)
    whole.fit(31)
    part = make_loop(tmp_path / "part", estimator=estimator)
    part.fit(cut)
    loop, _ = resumed(make_loop, tmp_path / "part", estimator)
    loop.fit(31)
    np.testing.assert_array_equal(
        loop.runtime.parameters["token"], whole.runtime.parameters["token"]
    )
    np.testing.assert_array_equal(loop.best.parameters["token"], whole.best.parameters["token"])
    # evaluations at the cut itself are extra, so compare those on the common grid
    assert loop.evals[-1] == whole.evals[-1]


@pytest.mark.parametrize("cut", [0, 1, 13, 24, 30])
def test_a_run_whose_steps_have_no_rate_resumes_to_the_same_bits(make_loop, tmp_path, cut):
    links = (Momentum(), Pull(0.02), LearningRate(1.0, 31, 0.0), NormLimit(), TailMean(((0, 31),)))
    rule = Chain(links)
    options = {"transform": rule, "best_margin": 0.25}

    def fresh():
        return GaussNewton(0.1, {"token": 1.0})

    whole = make_loop(tmp_path / "whole", estimator=fresh(), checkpoint_seconds=0.0, **options)
    whole.fit(31)
    # the newest checkpoint is of step `cut`; what the estimator remembers is in it
    make_loop(tmp_path / "part", estimator=fresh(), **options).fit(cut)
    loop, _ = resumed(make_loop, tmp_path / "part", fresh(), **options)
    loop.fit(31)
    replayed, complaints = resumed(make_loop, tmp_path / "whole", fresh(), **options)
    assert complaints == []
    assert whole.evals[-1] < 0.4
    for found in (loop, replayed):
        np.testing.assert_array_equal(
            found.runtime.parameters["token"], whole.runtime.parameters["token"]
        )
        for name, value in whole.state[ESTIMATOR].items():
            np.testing.assert_array_equal(found.state[ESTIMATOR][name], value)
        assert found.best.step == whole.best.step


def test_a_later_evaluation_within_the_margin_is_the_best(make_loop, tmp_path):
    loop = make_loop(tmp_path, best_margin=0.25)
    loop.fit(5)
    assert (loop.best.step, loop.evals[-1]) == (5, loop.best.loss)
    gain = loop.evals[0] - loop.best.loss
    for step, miss, best in ((5, 0.2, 6), (6, 0.5, 6)):
        loss = loop.best.loss + miss * gain
        loop.advance(replace(_step(loop, step), eval=loss))
        assert loop.best.step == best


def _step(loop, number):
    return StepRecord(number, 1.0, (0.0, 0.0), 3, 0, 0, 0, 0.0)


def test_a_journal_cut_at_any_byte_resumes_to_the_same_bits(make_loop, tmp_path):
    estimator = METHODS["zo"]
    whole = make_loop(tmp_path / "whole", estimator=estimator)
    whole.fit(10)
    content = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    random = np.random.default_rng(0)
    for cut in random.integers(len(content), size=25):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir(exist_ok=True)
        (folder / "journal.jsonl").write_bytes(content[:cut])
        loop, _ = resumed(make_loop, folder, estimator)
        loop.fit(10)
        np.testing.assert_array_equal(
            loop.runtime.parameters["token"], whole.runtime.parameters["token"]
        )
        assert (folder / "journal.jsonl").read_bytes().count(b"\n") == 1 + 10


def test_zeroth_order_replay_needs_no_forward_pass(make_loop, tmp_path):
    make_loop(tmp_path, estimator=METHODS["zo"]).fit(20)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    loop, _ = resumed(make_loop, tmp_path, METHODS["zo"])
    assert loop.next_step == 20
    assert loop.runtime.points_seen == []


def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(make_loop, tmp_path):
    estimator = METHODS["backprop"]
    whole = make_loop(tmp_path / "whole", estimator=estimator)
    whole.fit(30)
    make_loop(tmp_path / "part", estimator=estimator, checkpoint_seconds=0.0).fit(20)
    newest = sorted((tmp_path / "part" / "checkpoints").glob("step-*"))[-1]
    content = bytearray(newest.read_bytes())
    content[-3] ^= 0xFF
    newest.write_bytes(content)
    loop, complaints = resumed(make_loop, tmp_path / "part", estimator)
    assert len(complaints) == 1 and "damaged" in complaints[0]
    loop.fit(30)
    np.testing.assert_array_equal(
        loop.runtime.parameters["token"], whole.runtime.parameters["token"]
    )


@pytest.mark.parametrize("remove", [True, False])
def test_a_checkpoint_whose_best_is_lost_is_not_used(make_loop, tmp_path, remove):
    estimator = METHODS["backprop"]
    whole = make_loop(tmp_path / "whole", estimator=estimator)
    whole.fit(30)
    make_loop(tmp_path / "part", estimator=estimator).fit(20)
    for path in (tmp_path / "part" / "checkpoints").glob("best-*"):
        path.unlink() if remove else path.write_bytes(path.read_bytes()[:-1])
    loop, complaints = resumed(make_loop, tmp_path / "part", estimator)
    assert complaints and "best-" in complaints[0]
    loop.fit(30)
    for mine, expected in ((loop.runtime.parameters, whole.runtime.parameters),):
        np.testing.assert_array_equal(mine["token"], expected["token"])
    np.testing.assert_array_equal(loop.best.parameters["token"], whole.best.parameters["token"])


def test_only_what_two_checkpoints_refer_to_is_kept(make_loop, tmp_path):
    loop = make_loop(estimator=METHODS["backprop"], checkpoint_seconds=0.0)
    loop.fit(40)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert len([name for name in names if name.startswith("step-")]) == 2
    assert 1 <= len([name for name in names if name.startswith("best-")]) <= 2
    assert loop.best.path.name in names


def test_saving_copies_no_array(tmp_path):
    block = np.zeros((1000, 1000), np.float32)
    tracemalloc.start()
    try:
        best = checkpoint.save_best(tmp_path, 0, 1.0, {"block": block})
        snapshot = checkpoint.Snapshot(3, {"block": block}, {"block": {"first": block}}, best)
        path = checkpoint.save(tmp_path, snapshot)
        assert tracemalloc.get_traced_memory()[1] < 0.2 * block.nbytes
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(checkpoint.load(path).state["block"]["first"], block)


def test_a_bad_step_is_rolled_back_and_recorded(make_loop, estimator, tmp_path):
    clean = make_loop(tmp_path / "clean", estimator=estimator)
    clean.fit(7)
    poisoned = make_loop(
        tmp_path / "poisoned", estimator=estimator, runtime=QuadraticRuntime(poison={7})
    )
    poisoned.fit(8)
    for mine, expected in ((poisoned.runtime.parameters, clean.runtime.parameters),):
        np.testing.assert_array_equal(mine["token"], expected["token"])
    for part, value in clean.state["token"].items():
        np.testing.assert_array_equal(poisoned.state["token"][part], value)
    records, _ = journal.read(tmp_path / "poisoned" / "journal.jsonl")
    assert [bool(r["skipped"]) for r in records[1:]] == [False] * 7 + [True]
    poisoned.fit(20)
    assert np.isfinite(poisoned.runtime.parameters["token"]).all()


def test_a_run_with_a_bad_step_resumes_to_the_same_bits(make_loop, estimator, tmp_path):
    poison = {4, 9}
    whole = make_loop(
        tmp_path / "whole", estimator=estimator, runtime=QuadraticRuntime(poison=poison)
    )
    whole.fit(20)
    make_loop(tmp_path / "part", estimator=estimator, runtime=QuadraticRuntime(poison=poison)).fit(
        10
    )
    loop, _ = resumed(
        make_loop, tmp_path / "part", estimator, runtime=QuadraticRuntime(poison=poison)
    )
    loop.fit(20)
    np.testing.assert_array_equal(
        loop.runtime.parameters["token"], whole.runtime.parameters["token"]
    )


def test_many_bad_steps_in_a_row_stop_the_run_with_the_last_good_parameters(make_loop, estimator):
    loop = make_loop(estimator=estimator, runtime=QuadraticRuntime(poison=set(range(6, 99))))
    with pytest.raises(TrainingStopped, match="5 steps in a row"):
        loop.fit(60)
    assert np.isfinite(loop.runtime.parameters["token"]).all()
    assert loop.next_step == 10


class Overflowing(QuadraticRuntime):
    """Its evaluations from the `first`-th on give nothing finite, `count` of them."""

    def __init__(self, first, count):
        super().__init__()
        self.left = [*(False,) * first, *(True,) * count]

    def forward(self, batch, points):
        losses = super().forward(batch, points)
        if "step" not in batch and self.left and self.left.pop(0):
            losses[0, 3] = np.inf
        return losses


def test_a_step_whose_evaluation_is_not_finite_is_rolled_back(make_loop, estimator, tmp_path):
    """It ended in a traceback of the journal, which holds no such number."""
    loop = make_loop(estimator=estimator, runtime=Overflowing(1, 1))
    assert loop.fit(20) == "done"
    assert np.isfinite(loop.evals).all() and len(loop.evals) == 5  # with that of the start
    whole = loop.runtime.parameters["token"]
    steps = list(journal.Steps(journal.read(tmp_path / "journal.jsonl")[0]))
    assert [record.step for record in steps if record.skipped] == [9]
    assert "evaluation" in steps[9].skipped and np.isfinite(steps[9].eval)
    again, _ = resumed(make_loop, tmp_path, estimator)
    np.testing.assert_array_equal(again.runtime.parameters["token"], whole)


@pytest.mark.parametrize("steps", [5, 20])
def test_evaluations_that_stay_infinite_stop_the_run_in_a_sentence(
    make_loop, estimator, tmp_path, steps
):
    """The first, one on the way or the last: what is in the journal stays, and can be resumed."""
    loop = make_loop(estimator=estimator, runtime=Overflowing(0 if steps == 5 else 1, 99))
    with pytest.raises(TrainingStopped, match=r"step \d: the evaluation loss is not finite"):
        loop.fit(steps)
    records, intact = journal.read(tmp_path / "journal.jsonl")
    assert intact == (tmp_path / "journal.jsonl").stat().st_size
    taken = list(journal.Steps(records))
    assert len(taken) == (4 if steps == 5 else 9)
    assert all(record.eval is None or np.isfinite(record.eval) for record in taken)
    again, _ = resumed(make_loop, tmp_path, estimator)
    assert again.fit(steps) == "done"


def test_an_overflowing_update_is_rolled_back(make_loop):
    class Bursting:
        def estimate(self, runtime, task, batch, key, apply):
            if key.step == 3:
                apply("token", np.full((2, 6), 3e38, np.float32))
            return METHODS["zo"].estimate(runtime, task, batch, key, apply)

    loop = make_loop(estimator=Bursting())
    with np.errstate(over="ignore", invalid="ignore"):
        loop.fit(10)
    assert np.isfinite(loop.runtime.parameters["token"]).all()


def test_a_settled_evaluation_stops_early(make_loop, estimator):
    loop = make_loop(estimator=estimator, patience=4)
    assert loop.fit(2000) == "settled"
    assert loop.next_step < 1000
    assert loop.best.loss < 0.2


def test_a_requested_stop_ends_after_the_step_and_resumes(make_loop, estimator, tmp_path):
    whole = make_loop(tmp_path / "whole", estimator=estimator)
    whole.fit(20)
    part = make_loop(tmp_path / "part", estimator=estimator)

    def observe(record, best):
        part.stop_requested = record.step == 8

    part.observe = observe
    assert part.fit(20) == "interrupted"
    assert part.next_step == 9
    loop, _ = resumed(make_loop, tmp_path / "part", estimator)
    loop.fit(20)
    np.testing.assert_array_equal(
        loop.runtime.parameters["token"], whole.runtime.parameters["token"]
    )


def test_a_run_above_its_cap_is_stopped(make_loop):
    loop = make_loop(cap_bytes=1_000_000)
    with pytest.raises(TrainingStopped, match="the cap is 1 MB"):
        loop.fit(5)


def test_a_full_disk_is_one_sentence_and_the_journal_still_opens(make_loop, tmp_path):
    loop = make_loop(tmp_path)
    loop.fit(3)
    with open("/dev/full", "wb", buffering=0) as full:
        loop.journal._file, real = full, loop.journal._file
        with pytest.raises(RunFolderError, match="No space left"):
            loop.fit(5)
        loop.journal._file = real
    records, _ = journal.read(tmp_path / "journal.jsonl")
    assert len(records) == 1 + 3


def test_parameters_that_are_the_best_ones_are_written_once(make_loop):
    loop = make_loop()
    loop.save()
    (start,) = loop.checkpoints.glob("step-*")
    assert not any(name.startswith("parameters/") for name in StoredTensors(start))
    snapshot = checkpoint.load(start)
    for name, block in loop.runtime.parameters.items():
        np.testing.assert_array_equal(snapshot.parameters[name], block)
    loop.fit(3)
    newest = checkpoint.load(loop.checkpoints / "step-00000003.safetensors")
    for name, block in loop.runtime.parameters.items():
        np.testing.assert_array_equal(newest.parameters[name], block)
        assert np.abs(newest.parameters[name] - snapshot.parameters[name]).max() > 0


class Turns:
    """A `BlockSchedule`: blocks `a` and `b` take turns."""

    forgets = False

    def trains(self, step, name):
        return name == "ab"[step % 2]


class Halves:
    """A `BatchSelection`: the first two samples of a batch."""

    def choose(self, task, runtime, key):
        batch = task.batch(key)
        return {**batch, "noise": batch["noise"][:2]}


class Remembering:
    """A `Scoring`: which half is trained follows from what was trained before."""

    forwards = 4

    def begin(self, runtime):
        self.state = {"sum": np.zeros(2, np.float32)}
        return self.state

    def choose(self, task, runtime, key):
        batch = task.batch(key)
        self.state["sum"] += np.float32(np.abs(batch["noise"]).sum())
        some = slice(2) if int(self.state["sum"][0]) % 2 else slice(2, None)
        return {**batch, "noise": batch["noise"][some]}


def two_blocks():
    return QuadraticRuntime({name: np.ones((2, 3), np.float32) for name in "ab"})


def two_scales(estimator):
    return (
        ZerothOrder(0.01, {"a": 1.0, "b": 1.0}) if isinstance(estimator, ZerothOrder) else estimator
    )


def test_a_block_that_rests_keeps_every_bit_of_itself_and_its_state(make_loop, estimator):
    loop = make_loop(estimator=two_scales(estimator), runtime=two_blocks(), schedule=Turns())
    resting = {"a": "b", "b": "a"}
    for step in range(4):
        name = resting["ab"[step % 2]]
        block = loop.runtime.parameters[name].copy()
        state = {part: value.copy() for part, value in loop.state[name].items()}
        moved = loop.runtime.parameters["ab"[step % 2]].copy()
        loop.advance(loop.step(step))
        np.testing.assert_array_equal(loop.runtime.parameters[name], block)
        for part, value in state.items():
            schedule = part == "1.count"
            np.testing.assert_array_equal(loop.state[name][part], value + schedule)
        assert (loop.runtime.parameters["ab"[step % 2]] != moved).any()


def test_a_schedule_of_rates_counts_steps_and_not_the_updates_of_a_block(make_loop, estimator):
    """A block that is trained in every second step ended at 0.98 of the rate, not at 0.10."""
    loop = make_loop(estimator=two_scales(estimator), runtime=two_blocks(), schedule=Turns())
    whole = make_loop(estimator=two_scales(estimator), runtime=two_blocks())
    for step in range(7):
        for one in (loop, whole):
            one.advance(one.step(step))
        for name in "ab":
            assert loop.state[name]["1.count"] == whole.state[name]["1.count"] == step + 1
            assert loop.state[name]["0.count"] == sum(
                Turns().trains(s, name) for s in range(step + 1)
            )


def test_turns_and_chosen_samples_are_redone_from_the_journal_to_the_bit(
    make_loop, tmp_path, estimator
):
    options = {"schedule": Turns(), "selection": Halves(), "checkpoint_seconds": 1e9}
    own = two_scales(estimator)
    whole = make_loop(tmp_path / "run", estimator=own, runtime=two_blocks(), **options)
    whole.fit(9)
    for path in (tmp_path / "run" / "checkpoints").glob("step-*"):
        path.unlink()  # all steps are redone
    again, _ = resumed(make_loop, tmp_path / "run", own, runtime=two_blocks(), **options)
    assert again.next_step == 9
    for name in "ab":
        np.testing.assert_array_equal(
            again.runtime.parameters[name], whole.runtime.parameters[name]
        )


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_a_selection_that_remembers_goes_on_with_the_same_bits_from_any_checkpoint(
    make_loop, tmp_path, estimator, kept
):
    """What it remembers is in a checkpoint; steps after it are taken again, those of zo too."""
    whole = make_loop(tmp_path / "whole", estimator=estimator, selection=Remembering())
    whole.fit(9)
    part = {"estimator": estimator, "checkpoint_seconds": 1e9}
    make_loop(tmp_path / "part", selection=Remembering(), **part).fit(kept)
    loop, _ = resumed(make_loop, tmp_path / "part", selection=Remembering(), **part)
    loop.fit(9)
    for path in (tmp_path / "part" / "checkpoints").glob("step-*"):
        path.unlink()  # all steps are redone
    again, _ = resumed(make_loop, tmp_path / "part", selection=Remembering(), **part)
    for found in (loop, again):
        np.testing.assert_array_equal(found.state[SELECTION]["sum"], whole.state[SELECTION]["sum"])
        np.testing.assert_array_equal(
            found.runtime.parameters["token"], whole.runtime.parameters["token"]
        )


def test_passes_and_seconds_of_choosing_are_in_the_journal(make_loop, tmp_path):
    make_loop(tmp_path / "all", estimator=Backprop()).fit(2)
    make_loop(tmp_path / "some", estimator=Backprop(), selection=Remembering()).fit(2)
    plain, scored = (
        journal.read(tmp_path / name / "journal.jsonl")[0][1] for name in ("all", "some")
    )
    assert "selection_seconds" not in plain
    assert 0 <= scored["selection_seconds"] <= scored["seconds"]
    assert scored["forwards"] == Remembering.forwards + scored["backwards"]


class Forgetful(Turns):
    """Blocks take turns of three steps, and one that rests has no state."""

    forgets = True

    def trains(self, step, name):
        return name == "ab"[step // 3 % 2]


def test_a_block_that_rests_has_no_state_and_begins_anew(make_loop, estimator):
    loop = make_loop(estimator=two_scales(estimator), runtime=two_blocks(), schedule=Forgetful())
    for step in range(9):
        loop.advance(loop.step(step))
        active, resting = "ab" if step // 3 % 2 == 0 else "ba"
        assert not loop.state[resting]
        assert loop.state[active]["0.count"] == step % 3 + 1  # moments are of this turn
        assert loop.state[active]["1.count"] == step + 1  # rates are of the run


@pytest.mark.parametrize("kept", [2, 3, 4, 6, 7])
def test_turns_that_forget_go_on_with_the_same_bits_from_any_checkpoint(
    make_loop, estimator, tmp_path, kept
):
    options = {"schedule": Forgetful(), "checkpoint_seconds": 1e9}
    own = two_scales(estimator)
    whole = make_loop(tmp_path / "whole", estimator=own, runtime=two_blocks(), **options)
    whole.fit(10)
    part = make_loop(tmp_path / "part", estimator=own, runtime=two_blocks(), **options)
    part.fit(kept)
    again, complaints = resumed(make_loop, tmp_path / "part", own, runtime=two_blocks(), **options)
    assert again.next_step == kept
    assert not complaints
    again.fit(10)
    for name in "ab":
        np.testing.assert_array_equal(
            again.runtime.parameters[name], whole.runtime.parameters[name]
        )
        assert again.state[name].keys() == whole.state[name].keys()


def test_only_chosen_samples_are_trained(make_loop):
    runtime = two_blocks()
    loop = make_loop(
        estimator=ZerothOrder(0.01, {"a": 1.0, "b": 1.0}), runtime=runtime, selection=Halves()
    )
    record = loop.step(0)
    assert record.forwards == 2 * (2 + 1)  # two samples at two perturbed points and the centre


class SamplesOnly(QuadraticTask):
    """Batches that can be taken in parts: nothing in them but samples."""

    def batch(self, key):
        return {"noise": super().batch(key)["noise"]}


@pytest.mark.parametrize("micro_batch", [None, 1])
def test_a_longer_gradient_is_shortened_and_its_length_is_in_the_journal(make_loop, micro_batch):
    def first_step(**options):
        loop = make_loop(estimator=Backprop(micro_batch), **options)
        loop.task, loop.transform = SamplesOnly(), Chain((LearningRate(1.0, 9),))
        loop.__post_init__()
        before = loop.runtime.parameters["token"].copy()
        return loop.step(0), before - loop.runtime.parameters["token"]

    record, whole = first_step()
    length = float(np.linalg.norm(whole))
    assert record.gradient_norm == pytest.approx(length, rel=1e-5)
    record, clipped = first_step(clip=length / 2)
    assert record.gradient_norm == pytest.approx(length, rel=1e-5)
    # parameters near 1 lose what is below their last bit
    np.testing.assert_allclose(clipped, whole / 2, rtol=1e-4, atol=1e-6)
    assert record.backwards == 8  # four samples, once to measure and once to use
    record, free = first_step(clip=2 * length)
    np.testing.assert_array_equal(free, whole)


def test_a_clipped_run_resumes_to_the_same_bits(make_loop, tmp_path):
    whole = make_loop(tmp_path / "whole", estimator=Backprop(), clip=0.05)
    whole.fit(12)
    part = make_loop(tmp_path / "part", estimator=Backprop(), clip=0.05)
    part.fit(7)
    loop, _ = resumed(make_loop, tmp_path / "part", Backprop(), clip=0.05)
    loop.fit(12)
    np.testing.assert_array_equal(
        loop.runtime.parameters["token"], whole.runtime.parameters["token"]
    )
