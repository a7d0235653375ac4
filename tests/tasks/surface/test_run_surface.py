"""Task `surface` through the real command, without torch: learns, meshes, resumes, refuses."""

import json
import shutil

import numpy as np
import pytest
from running import kill, run_to_the_end, steps_in
from small_clouds import bowl, write_bowl

from edge_train import cli
from edge_train.arrays.nearest import nearest
from edge_train.bench.watched import watched
from edge_train.formats.clouds.cloud import read_cloud, read_mesh
from edge_train.rng import Key
from edge_train.tasks.surface import TASK
from edge_train.tasks.surface.model_file import FIELD, load_model
from edge_train.tasks.surface.recipe import SurfaceRecipe

pytestmark = pytest.mark.process
SMALL = ("--width", "24", "--samples", "200", "--evaluate-every", "50", "--mesh-cells", "24")
SMALL += ("--dense-points", "1000", "--evaluation-samples", "200", "--neighbor", "20")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_bowl(tmp_path_factory.mktemp("given") / "bowl.xyz")


def run(out, *words):
    assert cli.main(["run", *map(str, words), "--out", str(out), "--json"]) == 0
    return json.loads((out / "report.json").read_text())


def refused(capsys, *words, status=2):
    assert cli.main(["run", *map(str, words)]) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def trained(scan, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bowl"
    return out, run(out, scan, *SMALL, "--steps", "500")


def test_an_open_scan_becomes_a_mesh_more_points_and_normals(trained):
    out, report = trained
    assert report["task"] == "surface"
    assert report["eval"]["best"] < 0.5 * report["eval"]["first"]
    truth = bowl(3000, seed=7).astype(np.float32)
    corners, triangles = read_mesh(out / "mesh.ply")
    assert len(triangles) == report["metrics"]["triangles"] > 500
    _, far = nearest(truth, corners.astype(np.float32))
    assert far.mean() < 0.06
    assert report["metrics"]["border_loops"] >= 1  # the rim
    dense = read_cloud(out / "dense.ply", 5000, Key(0, 0)).points
    assert len(dense) == report["metrics"]["dense_points"] > 900
    assert np.abs(np.sqrt(np.square(dense).sum(1)) - 1).mean() < 0.03
    page = (out / "report.html").read_text()
    assert "The surface" in page and "load_model" in page


def test_normals_point_away_from_the_surface(trained):
    content = (trained[0] / "normals.ply").read_bytes()
    rows = content.split(b"end_header\n", 1)[1]
    kind = np.dtype([*((a, "<f8") for a in "xyz"), *((f"n{a}", "<f4") for a in "xyz")])
    found = np.frombuffer(rows, kind)
    points = np.stack([found[a] for a in "xyz"], axis=1)
    normals = np.stack([found[f"n{a}"] for a in "xyz"], axis=1)
    assert len(found) == 1500
    assert np.median(np.abs((points * normals).sum(1))) > 0.95  # a sphere's points away from zero


def test_distances_are_answered_in_the_units_of_the_cloud(trained):
    model = load_model(str(trained[0] / FIELD))  # a word, as the page has it
    asked = np.array([[0.0, -1.15, 0.0], [0.0, -1.0, 0.0]])
    found = model.frame.radius * model.field.distance(model.frame.inward(asked))
    assert found[0] == pytest.approx(0.15, abs=0.06) and found[1] < 0.06


@pytest.mark.parametrize("method", [m for m in TASK.able() if m != "adamw"])
def test_a_field_learns_by_every_able_method(method, scan, tmp_path):
    words = ("--method", method, "--steps", "10", "--mesh-cells", "0", "--dense-points", "0")
    report = run(tmp_path / "run", scan, *SMALL, *words)
    assert report["method"] == method
    assert report["eval"]["best"] < report["eval"]["first"]


def test_the_plain_field_is_there_for_comparison(scan, tmp_path):
    report = run(tmp_path / "run", scan, *SMALL, "--steps", "60", "--loss", "distance")
    assert report["eval"]["best"] < 0.7 * report["eval"]["first"]


def test_micro_batches_hold_less_and_train_alike(scan, tmp_path, capsys):
    words = (*SMALL, "--steps", "20", "--mesh-cells", "0", "--dense-points", "0")
    whole = run(tmp_path / "whole", scan, *words)
    parts = run(tmp_path / "parts", scan, *words, "--micro-batch", "33")
    assert parts["eval"]["best"] == pytest.approx(whole["eval"]["best"], rel=0.02)
    capsys.readouterr()
    plans = []
    for more in ((), ("--micro-batch", "64")):
        assert cli.main(["plan", str(scan), "--samples", "4000", *more, "--json"]) == 0
        phases = json.loads(capsys.readouterr().out)["plan"]["phases"]
        plans.append(next(phase["bytes"] for phase in phases if phase["name"] == "train"))
    assert plans[1] < 0.8 * plans[0]


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_so_often_it_ends_with_the_same_bits(kills, scan, tmp_path):
    steps = 60 * kills
    words = ("run", scan, *SMALL, "--steps", steps, "--mem", "150MB")
    whole, out = tmp_path / "whole", tmp_path / "run"
    run_to_the_end(*words, "--out", whole, out=whole)
    landed = []
    for number in range(kills):
        if not kill((*words, "--out", out), out, 1 + 5 * number, 0.002):
            break
        landed.append(steps_in(out))
    assert len(landed) == kills and landed == sorted(landed) and landed[-1] < steps
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == steps_in(whole) == steps
    for name in (FIELD, "mesh.ply", "dense.ply", "normals.ply"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_near_its_cap_holds_what_its_plan_says_also_seen_from_outside(scan, tmp_path):
    out, cap = tmp_path / "run", 130_000_000
    recipe = SurfaceRecipe(
        data=str(scan), samples=2000, steps=4, cap_bytes=cap, mesh_cells=32, dense_points=2000
    )
    seen = watched(out, recipe)
    assert seen.status == 0, seen.said
    plan = json.loads((out / "plan.json").read_text())
    assert plan["source"] == "rehearsal"
    assert seen.report["measured_peak_bytes"] == pytest.approx(plan["peak_bytes"], rel=0.08)
    assert seen.peak_bytes <= cap


@pytest.mark.slow
def test_a_cap_is_held_ten_times_seen_from_outside(scan, tmp_path):
    cap = 130_000_000
    for seed in range(10):
        recipe = SurfaceRecipe(
            data=str(scan),
            samples=2000,
            steps=4,
            cap_bytes=cap,
            mesh_cells=32,
            dense_points=2000,
            seed=seed,
        )
        seen = watched(tmp_path / "run", recipe)
        assert seen.status == 0, seen.said
        assert 0.5 * cap < seen.peak_bytes <= cap


def test_a_million_points_under_a_small_cap_are_thinned_and_said(tmp_path):
    path, out = tmp_path / "million.pcd", tmp_path / "run"
    points = bowl(1_000_000).astype("<f4")
    head = (
        "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 1000000\nHEIGHT 1\n"
        "POINTS 1000000\nDATA binary\n"
    )
    path.write_bytes(head.encode() + points.tobytes())
    recipe = SurfaceRecipe(
        data=str(path),
        points=1000,
        neighbor=20,
        samples=100,
        steps=2,
        cap_bytes=100_000_000,
        mesh_cells=0,
        dense_points=0,
    )
    seen = watched(out, recipe)
    assert seen.status == 0, seen.said
    assert seen.peak_bytes <= 100_000_000
    assert "1000 of 1000000 points are used" in " ".join(seen.report["notices"])


def test_kilometers_are_handled_and_said(tmp_path):
    path = write_bowl(tmp_path / "far.xyz", points=300, far=5e6, size=1000.0)
    words = (*SMALL, "--steps", "2", "--mesh-cells", "0", "--dense-points", "50")
    report = run(tmp_path / "run", path, *words)
    assert "divided by its radius" in " ".join(report["notices"])
    dense = read_cloud(tmp_path / "run" / "dense.ply", 100, Key(0, 0)).points
    assert not len(dense) or np.abs(dense - 5e6).max() < 5000


def test_a_mesh_without_faces_is_taken_for_its_corners_and_that_is_said(tmp_path):
    path = tmp_path / "corners.obj"
    path.write_text("".join(f"v {x} {y} {z}\n" for x, y, z in bowl(300)))
    report = run(tmp_path / "run", path, *SMALL, "--steps", "2")
    assert "corners.obj has no faces; its corners are the points" in report["notices"]


def test_of_an_archive_of_clouds_the_first_is_learned_and_that_is_said(tmp_path):
    path = tmp_path / "many.npz"
    np.savez(path, clouds=np.stack([bowl(300), bowl(300, seed=1)]))
    report = run(tmp_path / "run", path, "--task", "surface", *SMALL, "--steps", "2")
    assert "many.npz holds 2 clouds; its first one is learned" in report["notices"]


def test_a_run_goes_on_from_what_another_learned(trained, scan, tmp_path):
    report = run(tmp_path / "run", scan, *SMALL, "--steps", "3", "--from", trained[0])
    assert report["eval"]["first"] == pytest.approx(trained[1]["eval"]["best"], rel=0.05)


def test_bad_input_gets_one_sentence(scan, tmp_path, capsys):
    words = ("--task", "surface", "--out", tmp_path / "stopped")
    assert "no such file" in refused(capsys, tmp_path / "none.ply", *words)
    assert "it is a folder" in refused(capsys, tmp_path, *words)
    path = tmp_path / "a.xyz"
    for content, said in (
        ("", "has no points"),
        ("1 2 3\n", "has 1 point at"),
        ("1 2 3\n" * 100, "has 1 point at"),
        ("nan nan nan\n" * 100, "is finite"),
        ("".join(f"{n}e-310 {n * n % 7}e-310 0\n" for n in range(30)), "smaller units"),
    ):
        path.write_text(content)
        assert said in refused(capsys, path, *words)
    (tmp_path / "m.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 5\nend_header\n")
    assert "no x, y and z" in refused(capsys, tmp_path / "m.ply", *words)
    assert "give the same sizes" not in refused(capsys, scan, *words, "--from", tmp_path)
    assert not (tmp_path / "stopped").exists()


def test_a_damaged_field_is_refused(trained, scan, tmp_path, capsys):
    shutil.copytree(trained[0], tmp_path / "run")
    path = tmp_path / "run" / FIELD
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    words = (scan, "--task", "surface", "--from", tmp_path / "run", "--out", tmp_path / "new")
    assert "checksum" in refused(capsys, *words)
