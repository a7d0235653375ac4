"""Parts keep their budget and say by name what was left out; the table has a row for each."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_train.bench import gpu
from edge_train.bench.parts import FAILED, OK, SKIPPED, Part, Result, run_parts
from edge_train.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def python(code):
    return [sys.executable, "-c", code]


def run(parts, seconds=600):
    said = []
    found = run_parts(parts, seconds, said.append)
    assert len(said) == len(parts)
    return {one.name: one for one in found}


def test_a_part_gives_the_numbers_of_its_last_line_and_one_that_fails_says_why():
    found = run(
        [
            Part("good", python("print('words'); print('{\"seconds\": 2}')"), seconds=1),
            Part("bad", python("raise SystemExit('no such thing')"), seconds=1),
            Part("behind", python(""), seconds=1, after=("bad",)),
            Part("lazy", python('print(\'{"skipped": "no card here"}\')'), seconds=1),
            Part("beyond", python(""), ("no_module_of_this_name", "json", "no_package.inner")),
        ]
    )
    assert {name: one.state for name, one in found.items()} == {
        "good": OK,
        "bad": FAILED,
        "behind": SKIPPED,
        "lazy": SKIPPED,
        "beyond": SKIPPED,
    }
    assert found["good"].found == {"seconds": 2}
    assert "no such thing" in found["bad"].why and "'bad'" in found["behind"].why
    assert found["lazy"].why == "no card here"
    assert found["beyond"].why == "this Python has no no_module_of_this_name, no_package.inner"


def test_what_no_longer_fits_is_left_out_by_name_and_what_is_late_is_ended_with_its_children(
    tmp_path,
):
    """The child's number is read once it stands in a file: no clock says when it has begun."""
    child = f"import os, time; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); "
    child += "time.sleep(600)"
    late = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    found = run([Part("late", python(late), seconds=1), Part("next", python(""), seconds=1)], 4)
    assert found["late"].state == FAILED and "ended" in found["late"].why
    assert found["next"].state == SKIPPED and "it wants 1" in found["next"].why
    if (tmp_path / "child").is_file():
        number = (tmp_path / "child").read_text()
        for _ in range(100):
            status = Path(f"/proc/{number}/stat")
            if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.1)
        raise AssertionError("what a part started goes on without it")


def test_the_table_has_a_row_for_every_run_whatever_became_of_it(tmp_path):
    parts = gpu.parts_of(tmp_path, "cuda", "full")
    assert len({part.name for part in parts}) == len(parts)
    rows = []
    for number, name in enumerate(part.name for part in parts if "/" in part.name):
        state = (OK, SKIPPED, FAILED)[number % 3]
        report = {"seconds_per_step": 0.25, "measured_peak_bytes": 3 * 10**9, "dtype": "float16"}
        folder = gpu._folder(tmp_path, name)
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report))
        result = Result(name, state, "no time | left" * (state != OK), 3.0, report)
        rows.append(gpu.row_of(result, tmp_path))
    assert {row["model"] for row in rows} == {"sd15", "sdxl", "llama"}
    machine = {"card": "H200", "torch": "2.8.0", "cuda": "12.8"}
    lines = gpu.markdown(machine, rows, "full").splitlines()
    assert lines[0].startswith("H200, torch 2.8.0, CUDA 12.8.") and "driver" in lines[0]
    assert len(lines) == 4 + len(rows) and {line.count("|") for line in lines[2:]} == {8}
    assert "0.250 | 3 GB | float16 | ok" in lines[4]
    assert "skipped: no time / left" in lines[5]
    assert "nothing else" in gpu.markdown(machine, rows, "tiny")


def test_what_is_measured_fits_into_eight_minutes():
    assert gpu.BUDGET_SECONDS + 2 * 5 < 8 * 60


@pytest.mark.parametrize("words", [{"device": "tpu"}, {"size": "huge"}])
def test_an_unknown_device_or_size_is_refused(tmp_path, words):
    with pytest.raises(InputError, match="must be"):
        gpu.main(tmp_path, **words)


@pytest.mark.process
@pytest.mark.parametrize("script", ["tests/gpu", "tests/gpu/bench.py"])
def test_without_a_card_a_command_says_so_and_starts_nothing(script):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a card")
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "sees no card" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.process
def test_the_same_code_measures_tiny_models_on_a_processor(tmp_path):
    table = gpu.main(tmp_path, device="cpu", size="tiny", limit=3600)
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["state"] for row in content["rows"]} == {OK}
    assert all(row["seconds_per_step"] > 0 for row in content["rows"])
    assert all(row["measured_peak_bytes"] > 10**8 for row in content["rows"])
    assert table.count("\n") == 3 + len(content["rows"])


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("only", ["passes:", "runs:"])
def test_the_checks_of_a_card_pass_on_a_processor(tmp_path, only):
    """Which says nothing of a card, and that the checks themselves still run."""
    words = [
        "--device",
        "cpu",
        "--only",
        only,
        "--limit",
        "3600",
        "--json",
        tmp_path / "found.json",
    ]
    done = subprocess.run(
        [sys.executable, "tests/gpu", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    skipped = {one["name"] for one in found if one["state"] == SKIPPED}
    assert skipped <= {"runs:allocator", "passes:artifact"}


@pytest.mark.device
def test_the_checks_of_a_card_pass():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no card")
    assert subprocess.run([sys.executable, "tests/gpu"], cwd=ROOT, check=False).returncode == 0
