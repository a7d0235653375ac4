"""A plan's lines add up, it says what a run will hold, and a cap that is too small is refused."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from emulated import natively
from places import GOLDEN, ROOT
from recipes import recipe_for

from edge_train import cli
from edge_train.formats.artifact import open_artifact
from edge_train.memory import footprint
from edge_train.memory.footprint import PlanLine, state_line
from edge_train.memory.link import Link
from edge_train.memory.plan import Phase, Plan, estimate, is_far, surely_above, with_remainder
from edge_train.optim.adam8bit import Adam8bit
from edge_train.optim.transforms import Adam, Momentum
from edge_train.run.planning import choice_of
from edge_train.run.rehearsal import rehearse_apart
from edge_train.run.savings import next_smaller
from edge_train.run.survey import Choice, Survey, survey
from edge_train.tasks import open_job, read_recipe, tasks
from edge_train.tasks.personalize import footprint as diffusion_footprint

MEGABYTE = 10**6
linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks of a phase are Linux's")


@pytest.fixture
def recipe(photos):
    pytest.importorskip("onnxruntime")
    return recipe_for(model=str(GOLDEN), photos=str(photos), class_word="dog", threads=1)


def words(photos, *options):
    return [str(photos), "--model", str(GOLDEN), "--class", "dog", "--threads", "1", *options]


def a_plan(megabytes, **others):
    libraries = PlanLine("interpreter and libraries", 90 * MEGABYTE)
    lines = (libraries, PlanLine("weights", (megabytes - 90) * MEGABYTE))
    return Plan((Phase("prepare", lines[:1]), Phase("train", lines)), "rehearsal", **others)


def test_the_peak_is_the_largest_phase_and_phases_are_the_sum_of_their_lines(recipe):
    found = estimate(open_job(recipe).footprint(), 90 * MEGABYTE)
    assert len(found.phases) == 3
    for phase in found.phases:
        assert phase.bytes == sum(line.bytes for line in phase.lines)
        assert all(line.bytes >= 0 for line in phase.lines)
    assert found.peak_bytes == max(phase.bytes for phase in found.phases)
    assert found.peak_bytes < sum(phase.bytes for phase in found.phases)


def test_weights_left_in_their_file_are_planned_as_what_a_pass_reads_at_once(recipe, monkeypatch):
    monkeypatch.setattr(diffusion_footprint, "_WINDOW_BYTES", 1000)
    loaded = open_job(recipe).footprint().known
    lean = open_job(replace(recipe, lean=True)).footprint().known
    assert loaded["train"][0].bytes > 1000
    assert lean["train"][0] == PlanLine("weights (left in the file)", 1000)
    # the denoiser is gone when a lean run decodes its pictures
    assert loaded["train"][0] in loaded["save and draw"]
    assert lean["train"][0] not in lean["save and draw"]


def test_a_measured_phase_adds_up_to_its_peak_whatever_was_known():
    for known in ([], [PlanLine("a", 3)], [PlanLine("a", 30), PlanLine("b", 5)]):
        assert with_remainder("train", 20, known).bytes == 20


def test_a_plan_survives_its_record():
    plan = a_plan(120, seconds_per_step=0.5)
    assert Plan.from_record(json.loads(json.dumps(plan.record()))) == plan
    assert plan.record()["peak_bytes"] == 120 * MEGABYTE


def test_states_of_the_optimizer_are_counted_by_their_own_init(recipe):
    few, many = (
        next(
            line.bytes
            for line in estimate(open_job(replace(recipe, vectors=n)).footprint(), 0)
            .phases[1]
            .lines
            if "optimizer" in line.name
        )
        for n in (1, 8)
    )
    width = open_artifact(GOLDEN).manifest.text_widths[0]
    # speed, sum of the last words and start, four copies and four directions of float32 each
    assert many - few == 7 * width * 4 * (3 + 4 + 4)


def test_a_rehearsal_shows_every_phase_and_what_smaller_calls_save(recipe):
    whole = rehearse_apart(recipe)
    small = rehearse_apart(replace(recipe, batch_limit=1))
    assert [phase.name for phase in whole.phases] == ["prepare", "train", "save and draw"]
    assert whole.source == "rehearsal" and whole.seconds_per_step > 0
    assert small.peak_bytes < whole.peak_bytes


@linux
@natively
def test_a_run_near_its_cap_holds_what_its_plan_says(recipe, photos, tmp_path):
    out = tmp_path / "run"
    options = ("--mem", "200MB", "--steps", "6", "--preview-steps", "2", "--out", str(out))
    command = [sys.executable, "-m", "edge_train", "run", *words(photos, *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rehearsing it" in done.stderr
    assert "method zo: this engine only runs forward" in done.stderr
    plan = json.loads((out / "plan.json").read_text())
    report = json.loads((out / "report.json").read_text())
    assert plan["source"] == "rehearsal" and plan["cap_bytes"] == 200 * MEGABYTE
    assert report["plan_peak_bytes"] == plan["peak_bytes"]
    # arenas grow a little differently in every process; 3 % is what the bench finds at most
    assert report["measured_peak_bytes"] == pytest.approx(plan["peak_bytes"], rel=0.06)
    assert "plan" in (out / "report.html").read_text()


def test_plan_prints_lines_and_choices_and_trains_nothing(
    recipe, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", *words(photos, "--json", "--all", "--rehearse")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and found["refusal"] is None
    assert found["choices"][0]["source"] == "rehearsal"
    assert {choice["batch_limit"] for choice in found["choices"]} == {None, 8, 1}
    assert {choice["lean"] for choice in found["choices"]} == {False, True}
    assert list(tmp_path.iterdir()) == []


def a_network(folder):
    draw = np.random.default_rng(0)
    parts = {"train": 200, "test": 40}
    arrays = {f"{p}_images": draw.integers(0, 255, (n, 8, 8), np.uint8) for p, n in parts.items()}
    arrays |= {f"{part}_labels": np.arange(count) % 4 for part, count in parts.items()}
    np.savez(folder / "pictures.npz", **arrays)
    file = folder / "network.toml"
    file.write_text(
        'task = "network"\ndata = "pictures.npz"\nnetwork = "conv 4 3, tanh, dense 16, tanh"\n'
    )
    return file


@linux
def test_a_network_is_planned_rehearsed_and_refused_as_everything_else(tmp_path):
    asked = replace(read_recipe(a_network(tmp_path)), cap_bytes=30 * MEGABYTE)
    found = survey(asked, everything=True, rehearse=True)
    assert found.asked.plan.source == "rehearsal" and not found.fits
    ways = [choice.record(None) for choice in found.choices]
    assert {way["method"] for way in ways} == {"tpsgd", "local", "dfa", "drtp", "backprop"}
    assert {way["quant"] for way in ways} == {"none", "int8"}
    assert {way["batch_limit"] for way in ways} == {None, 8, 1}
    assert ways[0]["quality"] == "Fashion-MNIST 84.0 %"
    assert ways[0]["passes_per_step"] == "100 forward"
    assert "Nothing fits; a cap that does is --mem" in found.refusal()


@linux
@natively
def test_a_network_near_its_cap_is_rehearsed_and_holds_it(tmp_path):
    file, out = a_network(tmp_path), tmp_path / "run"
    options = ("--recipe", str(file), "--mem", "120MB", "--steps", "4", "--out", str(out))
    command = [sys.executable, "-m", "edge_train", "run", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads((out / "plan.json").read_text())
    report = json.loads((out / "report.json").read_text())
    assert plan["source"] == "rehearsal"
    assert report["measured_peak_bytes"] == pytest.approx(plan["peak_bytes"], rel=0.06)
    assert report["measured_peak_bytes"] <= 120 * MEGABYTE


def test_known_qualities_are_cells_of_the_benchmarks():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for page in (ROOT / "docs/benchmarks").glob("*.md")
        for line in page.read_text().splitlines()
        if line.startswith("|")
    ]
    measured = [cell for task in tasks.all().values() for cell in task.quality.values()]
    assert measured
    for name, cell in measured:
        found = [text for row in rows if row[0] == name for text in row[1:]]
        assert any(text.startswith(cell) or cell in text.split(", ") for text in found), name


def test_a_cap_that_is_too_small_is_refused_with_the_sentence(recipe, photos, capsys):
    assert cli.main(["plan", *words(photos, "--mem", "20MB")]) == 2
    printed = capsys.readouterr()
    assert "interpreter and libraries" in printed.out
    assert printed.out.startswith("does not fit: about ")
    sentence = printed.err
    assert sentence.startswith("edge-train: plan needs ")
    assert "cap is 20 MB (--mem 20MB). Largest: " in sentence
    assert "Nothing fits; a cap that does is --mem" in sentence
    assert sentence.endswith("`edge-train plan --all` lists every line.\n")


def test_the_advice_is_the_change_that_gives_up_least():
    asked = Choice({}, recipe_for(), a_plan(200))
    choices = (
        asked,
        Choice({"batch_limit": 8}, recipe_for(), a_plan(180)),
        Choice({"batch_limit": 1}, recipe_for(), a_plan(140)),
        Choice({"batch_limit": 1, "lean": True}, recipe_for(), a_plan(120)),
    )
    survey = Survey(asked, choices, 150 * MEGABYTE)
    assert not survey.fits
    assert "Try --batch-limit 1 (saves 60 MB)" in survey.refusal()
    assert "a cap that does is --mem 150MB" in Survey(asked, choices, 10**8).refusal()


def test_a_plan_answers_first_and_has_a_dozen_rows(recipe, photos, capsys):
    assert cli.main(["plan", *words(photos, "--mem", "8GB")]) == 0
    answer, *rows = capsys.readouterr().out.strip().split("\n")
    assert re.match(r"fits: about \d+ MB of 8 GB; about .* for 250 steps \(zo on onnx", answer)
    last = next(n for n, row in enumerate(rows) if row.startswith("`edge-train plan --all` lists"))
    assert len([row for row in rows[: last + 1] if row]) <= 12
    assert any("are cropped to their central square" in row for row in rows[last + 1 :])
    assert cli.main(["plan", *words(photos, "--mem", "8GB", "--all")]) == 0
    every = capsys.readouterr().out
    assert {"prepare", "train", "save and draw"} <= {
        line[:13].strip() for line in every.split("\n")
    }
    assert every.count("  fits\n") >= 12


def test_the_state_of_a_block_that_no_machine_holds_is_counted():
    shapes = {"inside.weight": (100_000_000, 1000), "norm.weight": (7,)}
    line = state_line(Adam(), shapes, copies=1)
    numbers = 10**11 + 7
    assert line.bytes == 4 * numbers * (2 + 1) + 2 * 8  # two moments, a copy, a count of each


@pytest.mark.parametrize("shape", [(5001, 900), (900, 5001), (4_500_001,), (3, 5000, 300)])
@pytest.mark.parametrize("rule", [Adam(), Adam8bit(seed=0), Momentum(0.9)], ids=repr)
def test_a_large_block_is_counted_as_its_rule_makes_it(monkeypatch, rule, shape):
    whole = state_line(rule, {"a": shape}, copies=0).bytes
    monkeypatch.setattr(footprint, "_LARGE_BLOCK", 100)
    assert state_line(rule, {"a": shape}, copies=0).bytes == whole


def test_a_plan_takes_what_a_run_takes(recipe):
    """A run gives up what `next_smaller` says until its own estimate has room; so does a plan."""
    sizes = set()
    for cap_bytes in (300 * MEGABYTE, 160 * MEGABYTE, 20 * MEGABYTE):
        asked, changes = replace(recipe, cap_bytes=cap_bytes), {}
        job = open_job(asked)
        while True:
            held = job.footprint()
            if estimate(held, held.libraries_bytes).peak_bytes <= cap_bytes:
                break
            if not (more := next_smaller(job.recipe, asked)):
                changes = None
                break
            changes = {**changes, **more}
            job = open_job(replace(asked, **changes))
        found = survey(asked)
        assert (dict(found.taken.changes) if found.taken else None) == changes
        sizes.add(None if changes is None else len(changes))
    assert len(sizes) >= 2  # some caps hold all of it, some do not


def test_a_far_cap_needs_no_rehearsal_and_an_estimate_refuses_only_what_is_sure():
    plan = a_plan(100)
    assert is_far(plan, None) and is_far(plan, 8 * 10**9) and not is_far(plan, 150 * MEGABYTE)
    assert surely_above(plan, 70 * MEGABYTE) and not surely_above(plan, 90 * MEGABYTE)


def test_auto_gives_up_the_exact_gradient_only_when_smaller_calls_do_not_help():
    asked = recipe_for(runtime="torch")
    now = replace(asked, method="backprop", quant="none")
    taken = []
    while changes := next_smaller(now, asked):
        taken.append(changes)
        now = replace(now, **changes)
    assert taken == [
        {"batch_limit": 8},
        {"batch_limit": 1},
        {"lean": True},
        {"quant": "int8"},
        {"method": "zo"},
        {"previews": False},
    ]


def test_what_was_asked_for_and_what_is_trained_already_is_never_chosen_again():
    now = recipe_for(runtime="torch", method="backprop", quant="none", batch_limit=1, lean=True)
    assert next_smaller(now, asked=now) == {"previews": False}
    assert next_smaller(now) == {"previews": False}


def test_a_choice_has_a_reason(recipe):
    job, link = open_job(recipe), Link(watch=None)
    assert choice_of(job, recipe, link) == "method zo: this engine only runs forward"
    asked = replace(recipe, method="zo")
    assert choice_of(job, asked, link) == "method zo: asked for"
    link = Link(watch=None, changes={"method": "zo", "quant": "int8"})
    line = choice_of(job, recipe, link)
    assert "the exact gradient does not fit" in line and "quant int8" in line


@pytest.mark.parametrize(
    ("options", "words_of_it"),
    [
        (("--mem", "8 bananas"), "write for example 8GB"),
        (("--resume", "runs/x"), "--resume"),
        (("--model", "nowhere"), "no model 'nowhere'"),
        (("--batch-limit", "0"), "batch_limit is 0, must be from 1"),
    ],
)
def test_bad_input_of_plan_is_one_sentence(capsys, options, words_of_it):
    try:
        status = cli.main(["plan", *options])
    except SystemExit as end:  # argparse
        status = end.code
    assert status == 2
    assert words_of_it in capsys.readouterr().err
