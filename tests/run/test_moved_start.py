"""A run that began with what another one learned goes on where that lies elsewhere now."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from edge_train import cli
from edge_train.records import journal
from edge_train.run import session
from edge_train.run.observer import Bar
from edge_train.tasks.network.recipe import NetworkRecipe
from edge_train.tasks.points.recipe import PointsRecipe


def table_of(path):
    random = np.random.default_rng(0)
    rows = random.standard_normal((60, 3))
    table = np.column_stack([rows, rows.sum(axis=1) > 0])
    np.savetxt(path, table, "%.6f,%.6f,%.6f,%d", header="a,b,c,label", comments="")
    return str(path)


def clouds_of(path):
    random = np.random.default_rng(0)
    np.savez(path, clouds=random.standard_normal((12, 32, 3)).astype(np.float32))
    return str(path)


def network(folder):
    data = table_of(folder / "table.csv")
    return NetworkRecipe(data=data, network="mlp 6", samples=8, method="backprop", steps=4)


def points(folder):
    data = clouds_of(folder / "clouds.npz")
    return PointsRecipe(data=data, points=32, samples=4, steps=4)


@pytest.fixture(params=[network, points])
def halves(request, tmp_path):
    """Return a run that began with another one's, cut after its second step, and that other one."""
    recipe = request.param(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    assert session.run(replace(recipe, out=str(first)), Bar()) == 0
    begun = replace(recipe, start=str(first), seed=1, out=str(second))
    assert session.run(begun, Bar()) == 0
    book = second / "journal.jsonl"
    whole = book.read_bytes()
    records = list(journal.read(book)[0])
    lines = whole.splitlines(keepends=True)
    kept = next(n for n, line in enumerate(lines) if b'"step":3,' in line)
    book.write_bytes(b"".join(lines[:kept]))
    return first, second, records


def losses(run):
    return [r["loss"] for r in journal.read(run / "journal.jsonl")[0] if r["kind"] == "step"]


def test_goes_on_where_its_start_lies_now_with_the_same_losses(halves):
    first, second, whole = halves
    moved = shutil.move(first, first.with_name("elsewhere"))
    assert cli.main(["run", "--resume", str(second), "--from", str(moved)]) == 0
    assert losses(second) == [r["loss"] for r in whole if r["kind"] == "step"]
    assert str(moved) in (second / "recipe.toml").read_text()


def test_a_start_that_moved_is_asked_for(halves, capsys):
    first, second, _ = halves
    shutil.move(first, first.with_name("elsewhere"))
    assert cli.main(["run", "--resume", str(second)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"began with --from {first}" in said
    assert f"--resume {second} --from PLACE" in said


def test_another_start_is_refused_and_not_kept(halves, request, tmp_path, capsys):
    first, second, _ = halves
    before = (second / "recipe.toml").read_bytes()
    recipe = request.node.callspec.params["halves"](tmp_path)
    other = first.with_name("other")
    assert session.run(replace(recipe, seed=2, out=str(other)), Bar()) == 0
    assert cli.main(["run", "--resume", str(second), "--from", str(other)]) != 0
    assert "this run began with" in " ".join(capsys.readouterr().err.split())
    assert (second / "recipe.toml").read_bytes() == before


def test_a_run_that_began_without_one_says_so(halves, capsys):
    first, _, _ = halves
    assert cli.main(["run", "--resume", str(first), "--from", str(first)]) != 0
    assert "did not begin with --from" in capsys.readouterr().err
