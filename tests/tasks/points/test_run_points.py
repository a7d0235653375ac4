"""Task `points` through the real command, without torch: learns, scores, resumes, refuses."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from running import kill, run_to_the_end, steps_in
from small_clouds import write_clouds

from edge_train import cli
from edge_train.bench.watched import watched
from edge_train.formats.clouds.cloud import read_cloud
from edge_train.formats.clouds.ply import write_ply
from edge_train.formats.tensor_store import load_tensors
from edge_train.methods import methods
from edge_train.rng import Key
from edge_train.tasks.points import TASK
from edge_train.tasks.points.model_file import AUTOENCODER, load_model
from edge_train.tasks.points.recipe import PointsRecipe

pytestmark = pytest.mark.process
SMALL = ("--points", "64", "--width", "16", "--code", "8", "--evaluate-every", "50")
LOSSES = ("sliced", "max-sliced", "v-dsw", "chamfer")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_clouds(tmp_path_factory.mktemp("given") / "scans")


def run(out, *words):
    assert cli.main(["run", *map(str, words), "--out", str(out), "--json"]) == 0
    return json.loads((out / "report.json").read_text())


def refused(capsys, *words, status=2):
    assert cli.main(["run", *map(str, words)]) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def trained(scans, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "scans"
    return out, run(out, scans, *SMALL, "--steps", "300")


@pytest.mark.parametrize("loss", LOSSES)
def test_clouds_are_reconstructed_by_every_loss(loss, scans, tmp_path):
    report = run(tmp_path / "run", scans, *SMALL, "--steps", "80", "--loss", loss)
    assert report["task"] == "points"
    assert report["eval"]["best"] < 0.3 * report["eval"]["first"]


@pytest.mark.parametrize("method", [m for m in TASK.able() if m not in ("adamw", "lora")])
def test_an_autoencoder_learns_by_every_able_method(method, scans, tmp_path):
    loss = "sliced" if methods.get(method).perturbs else "v-dsw"
    words = ("--method", method, "--loss", loss, "--steps", "15")
    report = run(tmp_path / "run", scans, *SMALL, *words)
    assert report["method"] == method
    assert report["eval"]["best"] < report["eval"]["first"]


def test_a_folded_grid_learns_too(scans, tmp_path):
    report = run(tmp_path / "run", scans, *SMALL, "--steps", "80", "--decoder", "folding")
    assert report["eval"]["best"] < 0.7 * report["eval"]["first"]


def test_the_report_shows_clouds_beside_their_reconstructions(trained):
    out, report = trained
    page = (out / "report.html").read_text()
    assert "Clouds and their reconstructions" in page and "edge-train score" in page
    assert all((out / one["picture"]).is_file() for one in report["metrics"]["shown"])
    assert report["metrics"]["code_bytes"] == 4 * 8 + 16 < report["metrics"]["cloud_bytes"]


def test_a_scan_like_those_that_were_learned_is_usual_and_another_is_not(
    trained, scans, tmp_path, capsys
):
    line = np.linspace(-1, 1, 200)
    write_ply(tmp_path / "stick.ply", np.stack([line, 0 * line, 0 * line], axis=1))
    words = ["score", str(trained[0]), str(scans / "00.ply"), str(tmp_path / "stick.ply")]
    out = tmp_path / "rebuilt"
    assert cli.main([*words, "--json", "--out", str(out)]) == 0
    usual, unusual = map(json.loads, capsys.readouterr().out.splitlines())
    assert not usual["unusual"] and unusual["unusual"]
    assert usual["score"] < usual["threshold"] < unusual["score"]
    rebuilt = read_cloud(next(out.glob("0000-*.ply")), 1000, Key(0, 0)).points
    assert rebuilt.shape == (64, 3)
    tensors, about = load_tensors(out / "codes.safetensors")
    assert json.loads(about["names"]) == [usual["scan"], unusual["scan"]]
    center, radius = tensors["frames"][0, :3], tensors["frames"][0, 3]
    again = load_model(trained[0] / AUTOENCODER).network.decode(tensors["codes"][:1])[0]
    np.testing.assert_allclose(center + radius * again, rebuilt, rtol=1e-4, atol=1e-5)
    assert cli.main(words) == 0
    assert "stick.ply: unusual (score" in capsys.readouterr().out


def test_one_cloud_that_was_held_out_does_not_make_all_others_unusual(tmp_path, capsys):
    scans = write_clouds(tmp_path / "scans", count=12)
    out = tmp_path / "run"
    report = run(out, scans, *SMALL, "--steps", "100")
    assert any("only 1 cloud is held out" in line for line in report["notices"])
    assert load_model(out / AUTOENCODER).deviation > 0
    capsys.readouterr()
    assert cli.main(["score", str(out), str(scans), "--json"]) == 0
    found = [json.loads(line)["unusual"] for line in capsys.readouterr().out.splitlines()]
    assert found.count(True) <= 1


def test_a_run_goes_on_from_what_another_learned(trained, scans, tmp_path, capsys):
    report = run(tmp_path / "run", scans, *SMALL, "--steps", "5", "--from", trained[0])
    assert report["eval"]["first"] == pytest.approx(trained[1]["eval"]["best"], rel=0.05)
    words = ("--points", "32", "--task", "points", "--from", trained[0])
    assert "give the same sizes" in refused(capsys, scans, *words)


def test_clouds_far_away_in_kilometers_train_like_those_near_zero(tmp_path):
    near = write_clouds(tmp_path / "near")
    far = write_clouds(tmp_path / "far", far=5e6, size=1000.0)
    reports = [
        run(tmp_path / f"run-{one.name}", one, *SMALL, "--steps", "30") for one in (near, far)
    ]
    first, second = (report["eval"]["best"] for report in reports)
    assert second == pytest.approx(first, rel=1e-3)
    assert "divided by their radius" in " ".join(reports[1]["notices"])


@pytest.mark.parametrize(
    ("loss", "kills"),
    [
        ("v-dsw", 2),
        pytest.param("v-dsw", 10, marks=pytest.mark.slow),
        pytest.param("sliced", 10, marks=pytest.mark.slow),
    ],
)
def test_killed_so_often_it_ends_with_the_same_bits(loss, kills, scans, tmp_path):
    steps = 50 * kills
    words = ("run", scans, *SMALL, "--loss", loss, "--steps", steps, "--samples", "8")
    whole, out = tmp_path / "whole", tmp_path / "run"
    run_to_the_end(*words, "--out", whole, out=whole)
    landed = []
    for number in range(kills):
        if not kill((*words, "--out", out), out, 1 + 3 * number, 0.002):
            break
        landed.append(steps_in(out))
    assert len(landed) == kills and landed == sorted(landed) and landed[-1] < steps
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == steps_in(whole) == steps
    assert (out / AUTOENCODER).read_bytes() == (whole / AUTOENCODER).read_bytes()


def test_a_run_near_its_cap_holds_what_its_plan_says_also_seen_from_outside(scans, tmp_path):
    out, cap = tmp_path / "run", 110_000_000
    recipe = PointsRecipe(
        data=str(scans), points=512, width=128, samples=16, steps=6, cap_bytes=cap, loss="v-dsw"
    )
    seen = watched(out, recipe)
    assert seen.status == 0, seen.said
    plan = json.loads((out / "plan.json").read_text())
    assert plan["source"] == "rehearsal"
    assert seen.report["measured_peak_bytes"] == pytest.approx(plan["peak_bytes"], rel=0.08)
    assert seen.peak_bytes <= cap


@pytest.mark.slow
def test_a_cap_is_held_ten_times_seen_from_outside(scans, tmp_path):
    cap = 110_000_000
    for seed in range(10):
        recipe = PointsRecipe(
            data=str(scans), points=512, width=128, samples=16, steps=6, cap_bytes=cap, seed=seed
        )
        seen = watched(tmp_path / "run", recipe)
        assert seen.status == 0, seen.said
        assert 0.5 * cap < seen.peak_bytes <= cap


def test_an_estimate_is_not_far_below_what_is_held(scans, tmp_path):
    out = tmp_path / "run"
    words = ("run", scans, "--points", "1024", "--width", "128", "--steps", "4")
    command = [sys.executable, "-m", "edge_train", *map(str, words), "--mem", "2GB"]
    command += ["--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads((out / "plan.json").read_text())
    held = json.loads((out / "report.json").read_text())["measured_peak_bytes"]
    assert plan["source"] == "estimate"
    assert 0.8 * held < plan["peak_bytes"] < 2 * held


def test_smaller_calls_give_the_same_gradient_and_hold_less(scans, capsys):
    plans = []
    for more in ((), ("--micro-batch", "1")):
        words = ["plan", str(scans), "--points", "4096", *more, "--json"]
        assert cli.main(words) == 0
        plans.append(json.loads(capsys.readouterr().out)["plan"]["peak_bytes"])
    assert plans[1] < plans[0]


def test_bad_input_gets_one_sentence(scans, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = ("--task", "points", "--out", tmp_path / "stopped")
    assert "no file is a cloud" in refused(capsys, tmp_path / "empty", *words)
    assert "no such file" in refused(capsys, tmp_path / "none", *words)
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(scans / "00.ply", one)
    assert "has 1 cloud" in refused(capsys, one, *words)
    (one / "1.xyz").write_text("")
    assert "1.xyz: has no points" in refused(capsys, one, *words)
    (one / "1.xyz").write_text("1 2 3\n")
    assert "has 1 finite point" in refused(capsys, one, *words)
    (one / "1.xyz").write_text("1 2 3\n" * 20)
    assert "at one place" in refused(capsys, one, *words)
    (one / "1.xyz").write_text("nan nan nan\n" * 20)
    assert "is finite" in refused(capsys, one, *words)
    (one / "1.xyz").unlink()
    assert not (tmp_path / "stopped").exists()
    assert "trains the plain sliced distance only" in refused(
        capsys, scans, *words, "--method", "zo", "--loss", "chamfer"
    )
    assert "kappa is not read by loss" in refused(capsys, scans, *words, "--kappa", "3")


def test_what_is_unusual_about_clouds_is_said(scans, tmp_path):
    folder = tmp_path / "scans"
    shutil.copytree(scans, folder)
    (folder / "30.xyz").write_text("0 0 0\n1 0 0\n0 1 0\n0 0 1\nnan 0 0\n")
    (folder / "31.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 3\n")
    np.savez(folder / "32.npz", clouds=np.random.default_rng(0).random((2, 9000, 3)))
    report = run(tmp_path / "run", folder, "--task", "points", *SMALL, "--steps", "2")
    notices = " ".join(report["notices"])
    for words in ("fewer than 64 points", "not finite", "surface is sampled", "are thinned"):
        assert words in notices
    assert "32.npz#0" in notices or "32.npz#1" in notices or "26" in notices


def test_a_damaged_autoencoder_is_refused(trained, scans, tmp_path, capsys):
    shutil.copytree(trained[0], tmp_path / "run")
    path = tmp_path / "run" / AUTOENCODER
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert cli.main(["score", str(tmp_path / "run"), str(scans)]) == 2
    assert "checksum" in capsys.readouterr().err
    assert cli.main(["score", str(tmp_path), str(scans)]) == 2
    assert f"has no {AUTOENCODER}" in capsys.readouterr().err
