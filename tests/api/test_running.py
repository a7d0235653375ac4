"""`et.run`: walled, from any thread, tied to its program; what it says and how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from places import ROOT

import edge_train as et
from edge_train.api import commands, given
from edge_train.memory.measure import measure

pytestmark = pytest.mark.process
MEM = "600MB"
LONG = 200_000  # steps: more than any test waits for


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    draw = np.random.default_rng(0)
    parts = {"train": 120, "test": 40}
    found = {f"{p}_images": draw.integers(0, 255, (n, 6, 6), np.uint8) for p, n in parts.items()}
    found |= {f"{part}_labels": np.arange(count) % 4 for part, count in parts.items()}
    path = tmp_path_factory.mktemp("arrays") / "pictures.npz"
    np.savez(path, **found)
    return str(path)


def recipe(arrays, steps, out):
    return et.NetworkRecipe(
        data=arrays,
        network="mlp 12 10",
        samples=20,
        steps=steps,
        evaluate_every=10,
        out=str(out),
    )


def wait_for_steps(run, count):
    for event in run.events():
        if event["event"] == "step" and event["step"] >= count:
            return


def test_a_run_from_a_thread_that_ends_is_walled_and_leaves_its_outputs(arrays, tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(et.run(recipe(arrays, 30, tmp_path / "run"), MEM))
    )
    thread.start()
    thread.join()  # whoever started it is gone; the run goes on
    (run,) = found
    events = list(run.events())
    assert [e["step"] for e in events if e["event"] == "step"] == list(range(30))
    assert events == list(run.events())
    assert run.report["status"] == "done"
    assert run.report["wall"] != "none" or sys.platform != "linux"
    assert run.outputs["network"].is_file()
    assert run.wait() is run


def test_a_run_that_is_cancelled_twice_is_saved_and_can_be_resumed(arrays, tmp_path):
    run = et.run(recipe(arrays, LONG, tmp_path / "run"), MEM)
    wait_for_steps(run, 5)
    run.cancel()
    run.cancel()
    assert run.report["status"] == "interrupted"
    run.cancel()
    steps = run.report["steps"]
    said = list(run.events())[-1]["text"]
    assert said == f"{steps} steps are saved; go on with `edge-train run --resume {run.folder}`"
    again = et.resume(run.folder)
    wait_for_steps(again, steps + 5)
    again.cancel()
    assert again.report["steps"] > steps


def test_what_is_wrong_is_raised_in_the_caller_and_leaves_nothing(arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = et.run(et.NetworkRecipe(data=str(tmp_path / "no.npz"), network="mlp 4"), MEM)
    with pytest.raises(et.EdgeTrainError, match=r"no\.npz: there is no such file"):
        run.wait()
    with pytest.raises(et.EdgeTrainError, match="no such file"):
        list(run.events())
    assert list((tmp_path / "runs").iterdir()) == []
    with pytest.raises(et.InputError, match="str is no recipe"):
        et.run("photos")
    with pytest.raises(et.InputError, match="lots"):
        et.run(recipe(arrays, 3, tmp_path / "run"), "lots")
    with pytest.raises(et.RunFolderError, match="this is not a run folder"):
        et.resume(tmp_path)


def test_in_one_process_a_run_is_over_when_it_returns(arrays, tmp_path):
    here = measure().resident_bytes  # of this process, whatever tests imported before
    cap = f"{here // 1_000_000 + 400}MB"
    run = et.run(recipe(arrays, 12, tmp_path / "run"), cap, walled=False)
    assert run.is_over
    assert run.report["wall"] == "none"
    assert sum(event["event"] == "step" for event in run.events()) == 12
    assert callable(et.run)  # although a folder of this name was imported
    assert callable(et.export)


_KERNEL = """
import sys, edge_train as et
run = et.run(et.NetworkRecipe(data={data!r}, network="mlp 12 10", samples=20, steps={steps},
             out={out!r}), {mem!r})
for event in run.events():
    if event["event"] == "step":
        print(event["step"], flush=True)
"""


def test_a_program_that_ends_before_its_run_stops_it_in_one_sentence_and_leaves_no_recipe(
    arrays, tmp_path
):
    out, scratch = tmp_path / "run", tmp_path / "scratch"
    scratch.mkdir()
    code = _KERNEL.format(data=arrays, steps=LONG, out=str(out), mem=MEM) + "        break\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)},
    )
    (sentence,) = done.stderr.splitlines()
    assert "the program ends, so its run is stopped with everything saved" in sentence
    assert json.loads((out / "report.json").read_text())["status"] == "interrupted"
    assert list(scratch.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a program that is gone")
def test_when_a_notebooks_kernel_is_killed_its_run_saves_ends_and_frees_its_folder(
    arrays, tmp_path
):
    out = tmp_path / "run"
    code = _KERNEL.format(data=arrays, steps=LONG, out=str(out), mem=MEM)
    kernel = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert kernel.stdout.readline()
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    kernel.stdout.close()
    while True:  # until the run has noticed, and has written its last record
        lines = (out / "journal.jsonl").read_text().splitlines()
        if json.loads(lines[-1])["kind"] == "end":
            break
        time.sleep(0.05)
    assert json.loads(lines[-1])["status"] == "interrupted"
    steps = json.loads(lines[-1])["step"]
    while True:  # its process lets go of the folder last
        again = et.resume(out, steps=steps + 3)
        try:
            again.wait()
        except et.EdgeTrainError as error:
            assert "is training in" in str(error)
        else:
            break
    assert again.report["status"] == "done"


@pytest.mark.slow
def test_a_plan_says_whether_it_fits(arrays, tmp_path):
    found = et.plan(recipe(arrays, 5, tmp_path / "run"), "10MB")
    assert not found["fits"]
    assert "Nothing fits" in found["refusal"]
    assert not (tmp_path / "run").exists()


def test_an_option_that_is_none_is_left_to_the_command(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(commands, "_said", lambda words: asked.append(words) or "")
    et.generate(tmp_path, ["a {}"], out=None, guidance=None, seed=3)
    et.export("model", tmp_path / "out", quant=None)
    assert asked[0] == ["generate", str(tmp_path), "--seed=3", "--prompt=a {}"]
    assert asked[1] == ["export", "model", str(tmp_path / "out")]


def test_photos_in_memory_become_files_beside_the_run(tmp_path):
    photos = [Image.new("RGB", (40, 48), "red"), np.zeros((40, 40, 3), np.uint8)]
    recipe, made = given.write(et.PersonalizeRecipe(), photos, tmp_path / "run")
    assert made == [tmp_path / "run.data"]
    assert recipe.photos == str(tmp_path / "run.data")
    sizes, corners = [], []
    for path in sorted(made[0].iterdir()):
        with Image.open(path) as picture:
            sizes.append(picture.size)
            corners.append(picture.getpixel((0, 0)))
    assert sizes == [(40, 48), (40, 40)]
    assert corners == [(255, 0, 0), (0, 0, 0)]


def test_texts_and_pairs_in_memory_become_a_table(tmp_path):
    pairs = [("good\nfilm", "yes"), ("bad", "no")]
    recipe, (place,) = given.write(et.ClassifyRecipe(), pairs, tmp_path / "a")
    lines = (place / "texts.jsonl").read_text().splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == pairs
    recipe, (place,) = given.write(et.LanguageModelRecipe(), ["one", "two"], tmp_path / "b")
    assert recipe.data == str(place / "texts.jsonl")
    assert json.loads((place / "texts.jsonl").read_text().splitlines()[1]) == {"text": "two"}


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("PersonalizeRecipe", ["a.png"], "photo 0 is str"),
        ("PersonalizeRecipe", [np.zeros((4, 4, 3))], "float64"),
        ("PersonalizeRecipe", [], "an empty list"),
        ("PersonalizeRecipe", "photos", "must be a list"),
        ("ClassifyRecipe", [("a", "b"), "c"], "item 1 of data is str"),
        ("ClassifyRecipe", [("a", object())], "item 0"),
        ("LanguageModelRecipe", ["a", 3], "item 1 of data is int"),
    ],
)
def test_data_of_a_wrong_type_is_refused_in_a_sentence(kind, data, words, tmp_path):
    with pytest.raises(et.InputError, match=words):
        given.write(getattr(et, kind)(), data, tmp_path / "run")
    assert not list(tmp_path.iterdir())
