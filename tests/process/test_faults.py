"""A handful of the campaign of faults, and files of a run folder that are not what they were."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from places import TESTS

from edge_train import cli
from edge_train.errors import RunFolderError
from edge_train.formats.tensor_store import StoredTensors, load_metadata, save_tensors
from edge_train.records.folder import RunFolder
from edge_train.records.journal import decode, encode, read, step_record

pytestmark = pytest.mark.process

CAMPAIGN = TESTS / "faults" / "campaign.py"
KINDS = ("mutation", "kill", "full", "terminate", "clock")
EACH = 1


def test_a_handful_of_faults_ends_with_the_same_bits_or_one_sentence(tmp_path):
    try_some(KINDS, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the wall is Linux's")
def test_a_run_with_a_cap_survives_the_end_of_its_parent_or_worker_at_an_instant(tmp_path):
    try_some(("capped-kill", "capped-signal"), tmp_path)


def try_some(kinds, folder):
    command = [sys.executable, CAMPAIGN, "--tasks", "network", "--kinds", *kinds]
    command += ["--count", str(EACH), "--seed", "12", "--keep", str(folder / "kept")]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{EACH * len(kinds)} cases, 0 failed" in done.stdout


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of a network that has one step to go."""
    root = tmp_path_factory.mktemp("recipe")
    draw = np.random.default_rng(0)
    arrays = {f"{p}_images": draw.integers(0, 255, (20, 4, 4), np.uint8) for p in ("train", "test")}
    arrays |= {f"{part}_labels": np.arange(20) % 2 for part in ("train", "test")}
    np.savez(root / "data.npz", **arrays)
    words = (
        f"run --task network --data {root / 'data.npz'} --steps 3 --samples 5 --evaluate-every 1"
    )
    words = [*words.split(), "--network", "mlp 6", "--out", str(root / "run")]
    assert cli.main(words) == 0
    lines = (root / "run" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (root / "run" / "journal.jsonl").write_bytes(b"".join(lines[:3]))
    return root / "run"


@pytest.fixture
def copy(stopped, tmp_path):
    """A copy of that run, free to be damaged."""
    return shutil.copytree(stopped, tmp_path / "run")


def resume(folder, *words):
    return cli.main(["run", "--resume", str(folder), *words])


UNREADABLE = {
    "no TOML": lambda path: path.write_text("no toml at [all"),
    "no UTF-8": lambda path: path.write_bytes(b"steps = 3 # \xff"),
    "no key": lambda path: path.write_text(path.read_text().replace("samples", "samqles")),
    "no number": lambda path: path.write_text(path.read_text().replace("steps = 3", "steps = 'x'")),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_a_recipe_that_cannot_be_read_is_made_again_from_the_journal(copy, capsys, damage):
    recipe = copy / "recipe.toml"
    whole = recipe.read_text()
    damage(recipe)
    assert resume(copy) == 0
    said = capsys.readouterr().err
    assert "recipe.toml: " in said and "made again from the journal" in said
    lines = whole.splitlines(keepends=True)
    assert recipe.read_text() == "".join(line for line in lines if not line.startswith("out ="))
    assert (copy / "recipe.damaged.toml").exists() == ("the old one is kept" in said)


def test_a_recipe_that_was_made_again_is_never_run_without_its_cap(copy, capsys):
    shutil.rmtree(copy)
    data = copy.with_name("table.csv")
    words = ["--task", "network", "--samples", "4", "--mem", "2GB"]
    data.write_text("a,b,label\n" + "".join(f"{n},{-n},{n % 2}\n" for n in range(20)))
    words += ["--network", "mlp 2", "--data", str(data), "--steps", "2", "--out", str(copy)]
    assert cli.main(["run", *words]) == 0
    assert resume(copy, "--mem", "3GB") == 0
    whole = (copy / "recipe.toml").read_bytes()
    (copy / "recipe.toml").write_text("no toml at [all")
    assert resume(copy) == 2  # nobody outside this process knew the cap when it was started
    assert "start again: `edge-train run --resume" in capsys.readouterr().err
    made = (copy / "recipe.toml").read_text()
    assert "cap_bytes = 2000000000" in made  # of the first record: no step was taken since
    assert made.splitlines()[1:3] == whole.decode().splitlines()[1:3]
    assert resume(copy) == 0


def test_what_a_start_leaves_that_was_killed_is_in_the_way_of_no_other(copy, capsys):
    words = ["run", "--recipe", str(copy / "recipe.toml"), "--out", str(copy.with_name("new"))]
    for name in ("samples", "checkpoints"):
        (copy.with_name("new") / name).mkdir(parents=True)
    for name in ("lock", ".recipe.toml.7.partial"):
        (copy.with_name("new") / name).touch()
    (copy.with_name("new") / "samples" / "mine.png").touch()
    assert cli.main(words) == 2
    assert "holds no run but other files (samples)" in capsys.readouterr().err
    (copy.with_name("new") / "samples" / "mine.png").unlink()
    assert cli.main(words) == 0


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_result_of_a_finished_run_that_is_not_whole_is_made_again(copy, capsys, how):
    result = copy / "network.safetensors"
    assert resume(copy) == 0
    whole = result.read_bytes()
    content = bytearray(whole)
    content[-1] ^= 1
    result.write_bytes(content)
    if how == "gone":
        result.unlink()
    assert resume(copy) == 0
    assert f"finished, but network.safetensors is {how}; made again" in capsys.readouterr().err
    assert result.read_bytes() == whole
    assert resume(copy) == 0
    assert "its report was made again" in capsys.readouterr().err


def forge(folder, number, **values):
    """Change a step, or the start (number 0), and give the record a right checksum."""
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    steps = [line for line, text in enumerate(lines) if decode(text)["kind"] == "step"]
    line = [0, *steps][number]
    lines[line] = encode({**decode(lines[line]), **values})
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("number", "values"),
    [(2, {"eval": 0.5}), (2, {"eval": None}), (1, {"loss": 3.5}), (0, {"eval": 1e-3})],
    ids=["an evaluation", "none", "a loss", "where it began"],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_number_of_a_journal_that_was_edited_is_found_by_what_checkpoints_say(
    copy, capsys, finished, number, values
):
    assert resume(copy) == 0
    wanted = shutil.copytree(copy, copy.with_name("wanted"))
    if not finished:
        journal = copy / "journal.jsonl"
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    forge(copy, number, **values)
    capsys.readouterr()
    assert resume(copy) == 0
    said = capsys.readouterr().err
    assert "does not tell of the steps that the checkpoints were written after" in said
    one, two = (
        [step_record(r) for r in read(run / "journal.jsonl")[0] if r["kind"] == "step"]
        for run in (wanted, copy)
    )
    for a, b in zip(one, two, strict=True):
        assert (a.loss, a.scalars, a.eval) == (b.loss, b.scalars, b.eval)
    assert (wanted / "network.safetensors").read_bytes() == (
        copy / "network.safetensors"
    ).read_bytes()


def test_a_checkpoint_of_another_run_does_not_speak_against_a_later_one(copy, capsys):
    assert resume(copy) == 0
    folder = copy / "checkpoints"
    known = sorted(folder.glob("step-*"))
    assert len(known) == 2
    metadata = {**load_metadata(known[0]), "history": "0" * 32}
    tensors = dict(StoredTensors(known[0]))
    save_tensors(known[0], tensors, {k: v for k, v in metadata.items() if not k.endswith("crc32")})
    capsys.readouterr()
    assert resume(copy) == 0
    assert "its report was made again" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["journal.jsonl", "recipe.toml", "checkpoints/x", "samples/x.png"])
@pytest.mark.skipif(sys.platform != "linux", reason="the device is that of Linux")
def test_a_device_in_a_run_folder_is_refused_and_not_read(copy, capsys, name):
    (copy / name).unlink(missing_ok=True)
    (copy / name).symlink_to(os.devnull)  # any other would be waited for without the refusal
    for words in (["run", "--resume"], ["report"]):
        assert cli.main([*words, str(copy)]) == 2
        assert f"{copy / name} is a device or socket" in capsys.readouterr().err


def test_a_pipe_in_a_run_folder_is_found_whatever_its_name(copy):
    os.mkfifo(copy / "samples" / "anything")
    with pytest.raises(RunFolderError, match="anything is a pipe"):
        RunFolder(copy).check_kinds()


@pytest.mark.parametrize("key", ["learning_rate", "samples", "momentum", "schedule", "mode"])
def test_a_recipe_that_was_edited_is_refused_by_its_key(stopped, capsys, key):
    recipe = stopped / "recipe.toml"
    whole = recipe.read_text()
    other = {"schedule": '"constant"', "mode": '"sequential"', "samples": "4"}.get(key, "0.25")
    kept = [line for line in whole.splitlines() if not line.startswith(f"{key} =")]
    recipe.write_text("\n".join([*kept, f"{key} = {other}"]))
    try:
        assert cli.main(["run", "--resume", str(stopped)]) == 2
    finally:
        recipe.write_text(whole)
    said = capsys.readouterr().err
    assert re.search(rf"recipe.toml says {key} = \S+, this run began with", said), said


def test_what_computes_nothing_may_change_and_folders_are_made_again(stopped, capsys):
    for path in (stopped / "checkpoints").iterdir():
        path.unlink()
    (stopped / "checkpoints").rmdir()
    assert cli.main(["run", "--resume", str(stopped), "--mem", "2GB"]) == 0
