"""The sequential mode: one block learns, the finished ones are read from disk."""

import numpy as np
import pytest
from small_problem import CLASSES, problem

from edge_train.errors import RunFolderError
from edge_train.estimators.layerwise.sequential import Sequential
from edge_train.estimators.layerwise.targets import Projections
from edge_train.estimators.layerwise.tpsgd import LocalRule, TargetProjection
from edge_train.rng import Key

RULE = LocalRule(
    TargetProjection("softmax", Projections("rademacher", 1.0, seed=3), CLASSES), "auto"
)
STEPS = 30


@pytest.fixture
def case(tmp_path):
    found = problem("gru")
    inputs = found.batch["inputs"]
    found.folder = tmp_path / "outputs"
    found.make = lambda folder=found.folder: Sequential(
        RULE, STEPS, folder, len(inputs), lambda numbers: inputs[numbers]
    )
    found.estimator = found.make()
    yield found
    found.estimator.close()


def take(case, step, numbers=range(20)):
    """Take a step; return the estimate and the names of the blocks that changed."""
    index = np.array(numbers)
    batch = {key: value[index] for key, value in case.batch.items()} | {"index": index}
    changed = set()

    def apply(name, gradient):
        changed.add(name.split(".")[0])
        case.runtime.parameters.subtract(name, np.float32(0.3) * gradient, Key(1, step))

    return case.estimator.estimate(case.runtime, None, batch, Key(1, step), apply), changed


def test_blocks_take_turns_and_only_one_changes(case):
    turns = [take(case, step) for step in range(STEPS)]
    assert [changed for _, changed in turns] == [{str(step * 3 // STEPS)} for step in range(STEPS)]
    for step, (estimate, _) in enumerate(turns):
        resting = [loss is None for loss in estimate.block_losses]
        assert resting == [block != step * 3 // STEPS for block in range(3)]


def test_the_file_holds_what_the_finished_blocks_give(case):
    for step in range(11):
        take(case, step)
    (path,) = case.folder.iterdir()
    rows = np.fromfile(path, np.float32).reshape(60, 6, 12)
    exact, _ = case.runtime.run(0, case.batch["inputs"])
    np.testing.assert_allclose(rows, exact, rtol=1e-5, atol=1e-6)


def test_a_removed_file_is_made_again_and_the_step_keeps_its_bits(case):
    for step in range(14):
        take(case, step)
    before = case.runtime.parameters.copy()
    first, _ = take(case, 14)
    case.runtime.parameters.load(before)
    case.estimator.close()
    for path in case.folder.iterdir():
        path.unlink()
    case.estimator = case.make()
    assert take(case, 14)[0] == first
    assert len(list(case.folder.iterdir())) == 1


def test_going_back_before_a_turn_and_on_again_gives_the_same_bits(case):
    """As a roll-back over the end of a turn does."""
    for step in range(9):
        take(case, step)
    before = case.runtime.parameters.copy()
    once = [take(case, step)[0] for step in range(9, 13)]
    case.runtime.parameters.load(before)
    assert [take(case, step)[0] for step in range(9, 13)] == once


def test_a_folder_that_cannot_be_written_is_one_sentence(case, tmp_path):
    (tmp_path / "file").write_text("")
    case.estimator = case.make(tmp_path / "file")
    with pytest.raises(RunFolderError, match=r"cannot be written"):
        take(case, 15)
