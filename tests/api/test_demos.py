"""The demos and the notebook run from top to bottom, and stay short."""

import json
import runpy

import pytest
from classifiers import make_data, make_tiny_classifier
from places import ROOT

DEMOS = ROOT / "demos"
SHORT = 40  # lines


@pytest.mark.parametrize("name", ["personalize", "classify", "own_module"])
def test_a_demo_is_short(name):
    assert len((DEMOS / f"{name}.py").read_text().splitlines()) < SHORT


def demo(name):
    return runpy.run_path(str(DEMOS / f"{name}.py"))["main"]


@pytest.mark.process
def test_the_demo_of_an_own_module_learns(tmp_path):
    assert demo("own_module")(steps=20, out=str(tmp_path / "run")).is_file()


@pytest.mark.slow
def test_the_demo_of_photos_in_memory_draws(tmp_path):
    drawn = demo("personalize")(steps=2, out=str(tmp_path / "run"))
    assert [path.is_file() for path in drawn] == [True] * 3


@pytest.mark.slow
def test_the_demo_of_pairs_in_memory_leaves_a_classifier(tmp_path):
    model = make_tiny_classifier(tmp_path / "model", make_data(tmp_path / "data"))
    outputs = demo("classify")(str(model), steps=3, out=str(tmp_path / "run"))
    assert all(path.exists() for path in outputs.values())


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((DEMOS / "edge_train.ipynb").read_text())["cells"]
    names = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["run"].report["eval"]["best"] < names["run"].report["eval"]["first"]
