"""One task after the other, through the real command: kept, measured, resumed, refused."""

import json

import numpy as np
import pytest
from running import kill, steps_in

from edge_train import cli
from edge_train.formats import learned_tasks, network_file
from edge_train.optim.input_space import orthonormal
from edge_train.records import journal

pytestmark = pytest.mark.process
PATTERNS = np.random.default_rng(5).integers(0, 256, (6, 6, 6))
SETTINGS = ("--task", "network", "--network", "mlp 20 16", "--steps", "60", "--samples", "20")
RATES = {
    **dict.fromkeys(("backprop", "tpsgd", "local", "drtp"), "0.2"),
    **dict.fromkeys(("adamw", "dfa"), "0.01"),
}
PLAIN = ("--method", "backprop", "--momentum", "0.5", "--lr", "0.2")


def task(path, patterns, names, *, shuffled=False, seed=1, side=6):
    """Save noisy pictures of some patterns under these names; shuffled, the pixels change place."""
    random = np.random.default_rng(seed)
    order = np.random.default_rng(9).permutation(36) if shuffled else np.arange(36)
    found = {"class_names": np.array(list(names))}
    for part, size in (("train", 200), ("test", 60)):
        labels = random.integers(0, len(patterns), size)
        noisy = PATTERNS[np.array(patterns)[labels]] + 50 * random.standard_normal((size, 6, 6))
        images = np.clip(noisy, 0, 255).astype(np.uint8).reshape(size, 36)[:, order]
        found[f"{part}_images"] = images.reshape(size, 6, 6)[:, :side, :side]
        found[f"{part}_labels"] = labels
    np.savez(path, **found)
    return path


def run(*words, status=0):
    assert cli.main(["run", *map(str, words), "--json"]) == status


def learned(folder, out, data, *words, before=None):
    """Train a run and return its report; after another one, where that is named."""
    start = ("--next", before) if before else SETTINGS
    run(*start, "--data", data, "--out", out, *words)
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Return a folder with data of tasks, and `first`, a run that learned one."""
    folder = tmp_path_factory.mktemp("continual")
    task(folder / "a.npz", (0, 1, 2), "abc")
    task(folder / "shuffled.npz", (0, 1, 2), "abc", shuffled=True)
    task(folder / "new.npz", (3, 4), "de")
    task(folder / "other.npz", (0, 1, 2), "bca", seed=2)
    learned(folder, folder / "first", folder / "a.npz", *PLAIN)
    return folder


def moved(before, after):
    """Return how far weights went in the old inputs' space, and in all, the largest of each."""
    old = network_file.load(before / "network.safetensors").parameters
    new = network_file.load(after / "network.safetensors").parameters
    inside = whole = 0.0
    for name, one in learned_tasks.load(before / "tasks.safetensors").directions.items():
        change = new[name].astype(np.float64) - old[name]
        base = orthonormal(one.codes, one.scale)
        inside = max(inside, float(np.abs(change @ base).max()))
        whole = max(whole, float(np.abs(change).max()))
    biases = [n for n in old if n.endswith("bias")]
    return inside, whole, max(float(np.abs(new[n] - old[n]).max()) for n in biases)


@pytest.mark.parametrize("method", RATES)
def test_outputs_for_old_inputs_of_the_space_do_not_change(first, tmp_path, method):
    """By less than 1e-5 for an input of length 1, in every layer, whatever the rule."""
    report = learned(
        *(tmp_path, tmp_path / "run", first / "shuffled.npz"),
        *("--continual", "gpm", "--method", method, "--lr", RATES[method], "--momentum", "0.9"),
        before=first / "first",
    )
    inside, whole, biases = moved(first / "first", tmp_path / "run")
    assert inside < 1e-5 and biases == 0 and whole > 1e-2
    if method not in ("dfa", "drtp"):  # random feedback has learned little after 60 steps
        assert report["metrics"]["test_accuracy"] > 0.6


def test_int8_weights_leave_the_space_by_rounding_alone(first, tmp_path):
    """Stochastic rounding knows no space: the drift is that of a few levels, not of learning."""
    learned(tmp_path, tmp_path / "first", first / "a.npz", *PLAIN, "--quant", "int8")
    drift = {}
    for way in ("gpm", "none"):
        out = tmp_path / way
        learned(
            tmp_path, out, first / "shuffled.npz", "--continual", way, before=tmp_path / "first"
        )
        drift[way], *_ = moved(tmp_path / "first", out)
    saved = network_file.load(tmp_path / "first" / "network.safetensors")
    levels = [np.abs(saved.parameters[f"{n}.weight"]).max() / 127 for n in range(3)]
    assert 1e-5 < drift["gpm"] < min(drift["none"], 20 * max(levels))


def test_the_old_task_is_kept_where_plain_training_forgets_it(first, tmp_path):
    """The same pictures under other names: what can be learned of them only at the old cost."""
    shares = {}
    for way in ("none", "gpm", "cuber"):
        report = learned(
            *(tmp_path, tmp_path / way, first / "other.npz", "--continual", way),
            before=first / "first",
        )
        shares[way] = report["metrics"]["tasks"]["scores"][1][0]
    assert shares["gpm"] > shares["none"] + 0.5
    assert shares["cuber"] > shares["none"] + 0.5


def test_new_classes_are_added_and_the_report_shows_every_task(first, tmp_path, capsys):
    report = learned(tmp_path, tmp_path / "two", first / "new.npz", before=first / "first")
    saved = network_file.load(tmp_path / "two" / "network.safetensors")
    assert saved.class_names == ("a", "b", "c", "d", "e") and saved.network.classes == 5
    tasks = report["metrics"]["tasks"]
    assert [len(row) for row in tasks["scores"]] == [1, 2]
    assert tasks["accuracy"] == pytest.approx(np.mean(tasks["scores"][1]))
    assert tasks["backward_transfer"] == tasks["scores"][1][0] - tasks["scores"][0][0]
    assert tasks["scores"][1][1] == report["metrics"]["test_accuracy"] > 0.8
    assert "backward transfer" in capsys.readouterr().out
    page = (tmp_path / "two" / "report.html").read_text()
    for words in ("Tasks one after the other", "a.npz", "new.npz", "Backward transfer"):
        assert words in page
    learned(tmp_path, tmp_path / "three", first / "shuffled.npz", before=tmp_path / "two")
    found = learned_tasks.load(tmp_path / "three" / "tasks.safetensors")
    assert [one.classes for one in found.tasks] == [(0, 1, 2), (3, 4), (0, 1, 2)]
    assert {one.owned.shape[0] for one in found.directions.values()} == {3}


def test_a_layer_of_patches_and_one_of_sequences_are_protected(first, tmp_path):
    for name, text in (("conv", "conv 3 3, tanh, maxpool 2, layernorm"), ("gru", "gru 8")):
        words = (*SETTINGS[:2], "--network", text, "--steps", "40", "--method", "backprop")
        run(*words, "--lr", "0.2", "--data", first / "a.npz", "--out", tmp_path / name)
        out = tmp_path / f"{name}-2"
        learned(tmp_path, out, first / "shuffled.npz", "--continual", "gpm", before=tmp_path / name)
        inside, whole, biases = moved(tmp_path / name, out)
        assert inside < 1e-5 and biases == 0 and whole > 0


def test_killed_under_a_cap_and_resumed_it_ends_with_the_same_bits(first, tmp_path):
    words = ("run", "--next", first / "first", "--data", first / "shuffled.npz", "--steps", "600")
    words = (*words, "--mem", "2GB", "--quant", "int8")
    run(*words[1:], "--out", tmp_path / "whole")
    out = tmp_path / "killed"
    assert kill((*words, "--out", out), out, 100, 0.005)
    assert 0 < steps_in(out) < 600
    assert cli.main(["run", "--resume", str(out), "--json"]) == 0
    for name in ("network.safetensors", "tasks.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def notices(out):
    return " ".join(journal.read(out / "journal.jsonl")[0][0]["facts"].get("notices", []))


def test_data_that_come_again_and_names_that_changed_are_said(first, tmp_path):
    learned(tmp_path, tmp_path / "again", first / "a.npz", before=first / "first")
    assert "those of task 1 (a.npz) again" in notices(tmp_path / "again")
    learned(tmp_path, tmp_path / "other", first / "other.npz", before=first / "first")
    assert "labels may have changed their meaning: what the data call" in notices(
        tmp_path / "other"
    )
    learned(tmp_path, tmp_path / "plain", first / "shuffled.npz", before=first / "first")
    assert notices(tmp_path / "plain") == ""


def test_examples_are_kept_only_if_they_may_be(first, tmp_path):
    words = (*PLAIN, "--kept-examples", "0")
    learned(tmp_path, tmp_path / "one", first / "a.npz", *words)
    (only,) = learned_tasks.load(tmp_path / "one" / "tasks.safetensors").tasks
    assert len(only.inputs) == 0 and only.scores[0] > 0.5
    report = learned(tmp_path, tmp_path / "two", first / "new.npz", before=tmp_path / "one")
    tasks = report["metrics"]["tasks"]
    assert tasks["scores"][1][0] is None and "accuracy" not in tasks


def test_a_limit_of_directions_is_kept_and_said(first, tmp_path, capsys):
    learned(tmp_path, tmp_path / "few", first / "a.npz", *PLAIN, "--most-directions", "2")
    assert "more than 2 directions hold" in capsys.readouterr().out
    found = learned_tasks.load(tmp_path / "few" / "tasks.safetensors").directions
    assert {one.codes.shape[1] for one in found.values()} == {2}


def refused(capsys, out, *words):
    run(*words, "--out", out, status=2)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("edge-train: ") and not out.exists()
    return message


def test_what_cannot_follow_is_one_sentence(first, tmp_path, capsys):
    task(tmp_path / "mixed.npz", (0, 3), "ad")
    task(tmp_path / "small.npz", (0, 1), "ab", side=5)
    before, out = first / "first", tmp_path / "out"
    said = refused(capsys, out, "--next", before, "--data", tmp_path / "mixed.npz")
    assert "class 'a' of the data was learned before and 'd' was not" in said
    said = refused(capsys, out, "--next", before, "--data", tmp_path / "small.npz")
    assert "on inputs of shape 6 x 6" in said and "5 x 5" in said
    said = refused(capsys, out, "--next", before, "--data", first / "a.npz", "--network", "mlp 9")
    assert "leave --network out" in said
    said = refused(capsys, out, "--next", tmp_path / "no", "--data", first / "a.npz")
    assert "there is no run in that folder" in said
    said = refused(capsys, out, "--next", before, "--from", before, "--data", first / "a.npz")
    assert "--from" in said and "leave" in said


def test_a_run_without_bases_or_with_damaged_ones_is_one_sentence(first, tmp_path, capsys):
    words, new, out = (*SETTINGS, "--data", first / "a.npz"), first / "new.npz", tmp_path / "out"
    run(*words, "--continual", "none", "--out", tmp_path / "bare")
    said = refused(capsys, out, "--next", tmp_path / "bare", "--data", new, "--continual", "gpm")
    assert "it has no bases" in said and "--continual none" in said
    learned(tmp_path, tmp_path / "after", new, "--continual", "none", before=tmp_path / "bare")
    run(*SETTINGS[:2], "--network", "dense 9, batchnorm, relu", "--steps", "5", *words[8:],
        "--out", tmp_path / "batch")  # fmt: skip
    said = refused(capsys, out, "--next", tmp_path / "batch", "--data", new)
    assert "batch normalization" in said and "layernorm" in said
    run(*words, "--out", tmp_path / "whole")
    kept = tmp_path / "whole" / "tasks.safetensors"
    kept.write_bytes(kept.read_bytes()[:-9])
    said = refused(capsys, out, "--next", tmp_path / "whole", "--data", new)
    assert "tasks.safetensors" in said and "cannot be read" in said


def test_a_run_of_another_task_is_one_sentence(first, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text('task = "classify"\n')
    said = refused(capsys, tmp_path / "out", "--next", tmp_path / "run", "--data", first / "a.npz")
    assert "next is not read by task 'classify', only by network" in said
