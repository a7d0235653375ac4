"""`edge-train audit` of a picture classifier: what it leaves, what it does not, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from places import SUPPORT
from running import Command
from tiny_backbone import write_backbone, write_classes

from edge_train import cli
from edge_train.bench.watched import watched_command
from edge_train.tasks.images.audit.conditions import RULES

pytestmark = pytest.mark.process

FEW = ("--forwards", "300", "--threads", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("audit")
    write_backbone(place / "tiny.onnx")
    write_classes(place / "pets")
    words = ("--task", "images", "--model", str(place / "tiny.onnx"), "--steps", "60")
    assert cli.main(["run", str(place / "pets"), *words, "--out", str(place / "run")]) == 0
    return place


def audited(run, *more):
    assert cli.main(["audit", str(run), *FEW, *more]) == 0
    return json.loads((run / "audit.json").read_text())


def test_every_patch_is_scored_before_and_after_hardening_and_no_patch_is_kept(made, capsys):
    before = {path.name for path in (made / "run").rglob("*")}
    found = audited(made / "run", "--harden")
    names = {(row["head"], row["patch"]) for row in found["rows"]}
    assert len(names) == 10
    assert all(0 <= row[rule] <= 1 for row in found["rows"] for rule in RULES)
    leads = {(row["head"], row["patch"]): row["lead"] for row in found["rows"]}
    assert leads["before", "fitted through 1 view"] < leads["before", "random"]
    assert leads["hardened", "none"] != leads["before", "none"]
    assert found["slopes"] == "forward passes"
    assert set(found["won_back"]) == {"one view", "mean of three"}
    assert {path.name for path in (made / "run").rglob("*")} - before == {"audit.json"}
    assert "Under a patch" in (made / "run" / "report.html").read_text()
    hardened = made / "run-hardened"
    assert json.loads((hardened / "report.json").read_text())["status"] == "done"
    capsys.readouterr()
    picture = next((made / "pets").rglob("*.png"))
    assert cli.main(["infer", str(hardened), str(picture)]) == 0
    assert audited(made / "run", "--harden") == found  # over the first, with the same bits


@pytest.mark.parametrize("change", ["steps", "pictures"])
def test_a_head_that_was_hardened_for_another_run_is_no_measure_of_this_one(
    change, made, tmp_path, capsys
):
    shutil.copytree(made / "pets", tmp_path / "pets")
    words = ("--task", "images", "--model", str(made / "tiny.onnx"), "--out", str(tmp_path / "run"))
    assert cli.main(["run", str(tmp_path / "pets"), *words, "--steps", "5"]) == 0
    audited(tmp_path / "run", "--harden")
    shutil.rmtree(tmp_path / "run")
    if change == "pictures":
        write_classes(tmp_path / "pets", seed=7)
    steps = "6" if change == "steps" else "5"
    assert cli.main(["run", str(tmp_path / "pets"), *words, "--steps", steps]) == 0
    assert cli.main(["audit", str(tmp_path / "run"), *FEW, "--harden"]) == 2
    assert "run-hardened is another run; remove it" in capsys.readouterr().err


def test_a_killed_audit_goes_on_to_the_same_bits(made, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    shutil.copytree(made / "run", whole)
    shutil.copytree(made / "run", cut)
    (cut / "audit.json").unlink(missing_ok=True)
    expected = audited(whole)
    command = [sys.executable, "-m", "edge_train", "audit", str(cut), *FEW, "--mem", "1GB"]
    started = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while started.poll() is None and time.monotonic() < until:
        file = cut / "audit.jsonl"
        if file.is_file() and b"steps" in file.read_bytes():
            break
        time.sleep(0.01)
    assert started.poll() is None
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert not (cut / "audit.json").exists()
    time.sleep(0.5)  # the worker ends itself when its parent is gone
    assert audited(cut) == expected
    assert not (cut / "audit.jsonl").exists()


def killed_again_and_again(run, kills, records, *words):
    """Type an audit, which the kernel ends after some records; return how often it was ended."""
    ended = 0
    for _ in range(kills):
        script = (str(SUPPORT / "dying.py"), str(records), "0.002")
        with Command("audit", run, *words, out=run, script=script) as command:
            status = command.wait()
        assert status in (0, -signal.SIGPROF), command.err
        ended += status != 0
    return ended


@pytest.mark.slow
def test_an_audit_that_was_killed_ten_times_ends_with_the_same_bits(made, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    shutil.copytree(made / "run", whole)
    shutil.copytree(made / "run", cut)
    (cut / "audit.json").unlink(missing_ok=True)
    expected = audited(whole, "--forwards", "1200")
    assert killed_again_and_again(cut, 10, 2, *FEW, "--forwards", "1200") == 10
    assert not (cut / "audit.json").exists()
    assert audited(cut, "--forwards", "1200") == expected


@pytest.mark.slow
def test_an_audit_holds_its_cap_ten_times_seen_from_outside(made, tmp_path):
    cap = 160_000_000
    for number in range(10):
        run = shutil.copytree(made / "run", tmp_path / str(number))
        (run / "audit.json").unlink(missing_ok=True)
        seen = watched_command(run, "audit", str(run), *FEW, "--mem", str(cap))
        assert seen.status == 0, seen.said
        assert (run / "audit.json").is_file()
        assert 0.3 * cap < seen.peak_bytes <= cap


def refused(capsys, *words, status=2):
    capsys.readouterr()
    assert cli.main(["audit", *map(str, words)]) == status
    return capsys.readouterr().err


def test_what_cannot_be_audited_is_said_in_a_sentence(made, tmp_path, capsys):
    assert "not a run folder" in refused(capsys, tmp_path)
    assert "must be 1 or more" in refused(capsys, made / "run", "--forwards", "0")
    run = shutil.copytree(made / "run", tmp_path / "run")
    (run / "classifier.safetensors").unlink()
    assert "--resume" in refused(capsys, run)
    assert "Try --mem" in refused(capsys, made / "run", "--mem", "45MB")
    gone = tmp_path / "gone"
    shutil.copytree(made / "run", gone)
    text = (gone / "recipe.toml").read_text().replace("tiny.onnx", "other.onnx")
    (gone / "recipe.toml").write_text(text)
    assert "other.onnx" in refused(capsys, gone)


def test_a_run_without_held_out_photos_is_refused(made, tmp_path, capsys):
    few = tmp_path / "few"
    for folder in (made / "pets").iterdir():
        (few / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:3]:
            shutil.copy(file, few / folder.name)
    words = ("--task", "images", "--model", str(made / "tiny.onnx"), "--steps", "5")
    assert cli.main(["run", str(few), *words, "--out", str(tmp_path / "run")]) == 0
    assert "held out" in refused(capsys, tmp_path / "run")
