"""Fixtures that several tests share."""

from pathlib import Path

import pytest
from quadratic import QuadraticRuntime, QuadraticTask

from edge_train.journal import Journal
from edge_train.loop import Loop
from edge_train.memory import Guard
from edge_train.methods.zo import ZerothOrder
from edge_train.transforms import Adam, Chain, LearningRate


@pytest.fixture
def make_loop(tmp_path: Path):
    """Return a function that makes a loop over the quadratic in a folder of its own."""
    journals = []

    def make(folder: Path = tmp_path, *, estimator=None, runtime=None, keep=None, **options):
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        loop = Loop(
            runtime=runtime or QuadraticRuntime(),
            task=QuadraticTask(),
            estimator=estimator or ZerothOrder(0.01, {"token": 1.0}),
            transform=Chain((Adam(), LearningRate(0.05, 60, 0.1))),
            guard=Guard(options.pop("cap_bytes", None), lambda: 0),
            journal=Journal(folder / "journal.jsonl", keep),
            checkpoints=folder / "checkpoints",
            seed=3,
            evaluate_every=5,
            patience=options.pop("patience", 0),
            **options,
        )
        journals.append(loop.journal)
        loop.begin(1.0)
        return loop

    yield make
    for book in journals:
        book.close()
