"""Which tests run here, and fixtures that several of them share."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import belongs_here, is_desk
from PIL import Image
from quadratic import QuadraticRuntime, QuadraticTask

from edge_train.estimators.zo import ZerothOrder
from edge_train.loop import Loop
from edge_train.memory.guard import Guard
from edge_train.optim.transforms import Adam, Chain, LearningRate
from edge_train.records.journal import Journal

# commands of their own, which are no modules of the product either
collect_ignore = ["faults", *(f"attacks/{name}.py" for name in ("campaign", "commands", "damage"))]


def pytest_configure(config: pytest.Config) -> None:
    """Run doctests on the desk only, where everything that they import is installed.

    Told to end, tests take away what they made, as after Ctrl-C: runs, and groups of memory.

    On the desk two jobs share two cores, and threads that spin while they wait for each other cost
    a tiny network eight times what it takes on one. The device environment measures memory, which
    threads are part of, so nothing is changed there.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if is_desk():
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    else:
        config.option.doctestmodules = False


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out test files of the other environment."""
    return (
        collection_path.name.startswith("test_") and not belongs_here(collection_path.stem)
    ) or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs an exported model: an export is a whole command."""
    for item in items:
        if {"exported", "classifiers"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("process")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let a test draw the same random weights whatever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


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
            transform=options.pop("transform", Chain((Adam(), LearningRate(0.05, 60, 0.1)))),
            guard=Guard(options.pop("cap_bytes", None), lambda: 0),
            journal=Journal(folder / "journal.jsonl", keep),
            checkpoints=folder / "checkpoints",
            seed=3,
            evaluate_every=5,
            patience=options.pop("patience", 0),
            **options,
        )
        journals.append(loop.journal)
        if not keep:
            loop.journal.append({"kind": "start", "version": 1, "eval": 1.0})
        loop.begin(1.0)
        return loop

    yield make
    for book in journals:
        book.close()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two small photos of noise; nobody writes into it."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@dataclass(frozen=True)
class Exported:
    """A tiny model and its artifact in every profile; all tiny models share its VAE's graphs."""

    model: Path
    artifacts: Mapping[str, Path]
    said: Mapping[str, Sequence[str]]
    vae_graphs: Sequence[Any]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export one tiny model in every profile; its graphs are made once, which is the slow part."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from tiny_models import make_tiny_model

    from edge_train.export.diffusion_graphs import step_graph, vae_graphs
    from edge_train.formats.diffusion_folder import open_model
    from edge_train.quant import of_artifacts
    from edge_train.tasks.personalize import export as exporting

    root = tmp_path_factory.mktemp("exported")
    model = make_tiny_model(root / "model", widths=(16,))
    opened = open_model(model)
    step, vae = step_graph(opened, 32), vae_graphs(opened, 32)
    said: dict[str, list[str]] = {quant: [] for quant in of_artifacts()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_EFFORT", replace(exporting._EFFORT, slope_samples=8))
        patch.setattr(exporting, "step_graph", lambda model, side: step.clone())
        patch.setattr(exporting, "vae_graphs", lambda model, side: [g.clone() for g in vae])
        for quant in of_artifacts():
            exporting.export(
                str(model),
                root / quant,
                quant=quant,
                photos=None,
                resolution=None,
                threads=1,
                say=said[quant].append,
            )
    return Exported(model, {quant: root / quant for quant in of_artifacts()}, said, vae)


@dataclass(frozen=True)
class Classifiers:
    """Examples, a tiny classifier of them, and its training artifacts."""

    data: Path
    model: Path
    artifact: Path
    head_artifact: Path
    said: Sequence[str]


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Classifiers:
    """Make one tiny classifier and export it, with all weights and with only its head trained."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from classifiers import make_data, make_tiny_classifier

    from edge_train.errors import InputError
    from edge_train.runtimes.onnx.classifier import check_flavor
    from edge_train.tasks.classify.export import export_training

    try:
        check_flavor()
    except InputError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("classifiers")
    data = make_data(root / "data")
    model = make_tiny_classifier(root / "model", data)
    said: list[str] = []
    for name, head_only in (("all", False), ("head", True)):
        export_training(str(model), root / name, head_only=head_only, threads=1, say=said.append)
    return Classifiers(data, model, root / "all", root / "head", said)
