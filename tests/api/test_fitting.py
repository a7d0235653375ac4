"""`et.fit`: anybody's module and loss, by every method, resumable bit for bit, refused in words."""

import sys
import threading

import pytest
import torch
from torch import nn

import edge_train as et
from edge_train.api.observing import Events
from edge_train.api.said import Said
from edge_train.run import session
from edge_train.tasks import open_job
from edge_train.tasks.module.recipe import ModuleRecipe

STEPS = 12
METHODS = ("adamw", "zo", "q-galore", "adamw8bit", "frugal")
DRAW = torch.Generator().manual_seed(1)
BATCHES = [(torch.randn(6, 4, generator=DRAW), torch.randn(6, 2, generator=DRAW)) for _ in range(5)]


def module(seed=0):
    """Return a module with all that makes resuming hard: statistics, and chance."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2)
        )


def loss(module, batch):
    inputs, targets = batch
    return nn.functional.mse_loss(module(inputs), targets)


def bits(module):
    return [tensor.numpy().tobytes() for tensor in module.state_dict().values()]


class Raising:
    """A loss that raises at one of its calls."""

    def __init__(self, call):
        self.left = call

    def __call__(self, module, batch):
        self.left -= 1
        if self.left == 0:
            raise KeyError("no such label")
        return loss(module, batch)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_whose_loss_raised_is_resumed_with_the_bits_of_an_undisturbed_one(method, tmp_path):
    keys = {"method": method, "steps": STEPS, "evaluate_every": 4}
    keys["learning_rate"] = 0.005 if method == "zo" else 0.05
    whole = module()
    run = et.fit(whole, loss, BATCHES, out=tmp_path / "whole", **keys)
    assert run.report["status"] == "done"
    losses = run.report["eval"]
    assert losses["last"] != losses["first"]
    if method != "zo":  # slopes along a few directions need more steps than a test takes
        assert losses["best"] < losses["first"]

    raising = Raising(43 if method == "zo" else 13)
    with pytest.raises(KeyError, match="no such label") as caught:
        et.fit(module(), raising, BATCHES, out=tmp_path / "run", **keys)
    if sys.version_info >= (3, 11):
        assert f"et.fit(..., resume='{tmp_path / 'run'}')" in caught.value.__notes__[0]
    assert et.Run(tmp_path / "run", None, None).report["status"] == "stopped"

    other = module(seed=9)  # made anew, as after a restart
    run = et.fit(other, loss, BATCHES, resume=tmp_path / "run")
    assert run.report["steps"] == STEPS
    assert run.report["resumed"] == 1
    assert run.report["eval"] == losses
    assert bits(other) == bits(whole)
    learned = (tmp_path / "run/learned.safetensors").read_bytes()
    assert learned == (tmp_path / "whole/learned.safetensors").read_bytes()


def test_what_was_learned_is_loaded_by_its_names(tmp_path):
    from safetensors.torch import load_file

    trained = module()
    run = et.fit(trained, loss, lambda step: BATCHES[step % 5], steps=3, out=tmp_path / "run")
    fresh = module(seed=4)
    fresh.load_state_dict(load_file(run.outputs["learned"]))
    assert bits(fresh) == bits(trained)
    assert any("no wall stands" in line for line in run.report["notices"])
    assert run.report["plan_peak_bytes"] > 0


def test_chance_modes_and_gradients_of_the_caller_are_left_as_they_were(tmp_path):
    mine = module()
    mine[2].eval()
    before, modes = torch.get_rng_state(), [one.training for one in mine.modules()]
    et.fit(mine, loss, BATCHES, steps=2, out=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    assert [one.training for one in mine.modules()] == modes
    assert all(one.grad is None for one in mine.parameters())


def test_frozen_parameters_stay_and_one_that_is_not_reached_is_no_error(tmp_path):
    mine = module()
    mine[0].weight.requires_grad_(False)
    mine.register_parameter("unused", nn.Parameter(torch.ones(2)))
    before = mine[0].weight.clone()
    et.fit(mine, loss, BATCHES, steps=3, out=tmp_path / "run", weight_decay=0.0)
    assert torch.equal(mine[0].weight, before)
    assert torch.equal(mine.unused, torch.ones(2))


def nan_after(calls):
    """Return a loss that is NaN after some calls, whatever it is called with."""
    left = [calls]

    def loss_of(module, batch):
        left[0] -= 1
        return loss(module, batch) * (float("nan") if left[0] < 0 else 1.0)

    return loss_of


def nan_from(step):
    """Return batches whose loss is NaN from a step on."""
    return lambda at: [part * (float("nan") if at >= step else 1.0) for part in BATCHES[at % 5]]


def test_losses_that_are_nan_stop_the_run_with_its_good_steps_saved(tmp_path):
    with pytest.raises(et.TrainingStopped, match=r"5 steps in a row.*7 steps are in"):
        et.fit(module(), loss, nan_from(3), evaluation=BATCHES, steps=20, out=tmp_path / "run")
    with pytest.raises(et.TrainingStopped, match="must depend on the parameters and the batch"):
        et.fit(module(), nan_after(7), BATCHES, steps=20, out=tmp_path / "chance")
    with pytest.raises(et.ModelError, match="not finite before the first step"):
        et.fit(module(), nan_after(0), BATCHES, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"module": nn.ReLU()}, "ReLU has no parameters to train"),
        ({"module": 3}, "module is int, must be a torch.nn.Module"),
        ({"module": module().double()}, "torch.float64 on cpu"),
        ({"loss": 3}, "loss is int"),
        ({"loss": lambda m, b: m(b[0])}, r"\(6, 2\).*take its .mean"),
        ({"loss": lambda m, b: 3.0}, "returned float"),
        ({"batches": iter(BATCHES)}, "could not be resumed; pass list"),
        ({"batches": torch.utils.data.DataLoader(BATCHES)}, "DataLoader.*could not be resumed"),
        ({"batches": []}, "batches is empty"),
        ({"batches": 3}, "batches is int"),
        ({"evaluation": "all"}, "evaluation is str"),
        ({"method": "tpsgd"}, "not for task 'module'"),
        ({"method": "adamv"}, "did you mean 'adamw'"),
        ({"lerning_rate": 1.0}, "did you mean 'learning_rate'"),
        ({"mem": "20MB"}, "plan needs"),
        ({"mem": "some"}, "some"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_before_anything_is_made(
    change, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = {"module": module(), "loss": loss, "batches": BATCHES, "steps": 2, **change}
    with pytest.raises(et.InputError, match=words):
        et.fit(**given)
    assert not list((tmp_path / "runs").glob("*"))


def test_another_module_key_or_data_is_refused_when_a_run_goes_on(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(KeyError):
        et.fit(module(), Raising(9), BATCHES, out=out, steps=STEPS)
    with pytest.raises(et.InputError, match="method is 'zo' here"):
        et.fit(module(), loss, BATCHES, resume=out, method="zo")
    with pytest.raises(et.RunFolderError, match="sha256"):
        et.fit(nn.Linear(4, 2), loss, BATCHES, resume=out)
    with pytest.raises(et.RunFolderError, match="not those that this run began with"):
        et.fit(module(), loss, BATCHES[1:], resume=out)


def test_a_run_of_a_program_says_where_it_goes_on():
    with pytest.raises(et.InputError, match=r"go on there, with et\.fit"):
        open_job(ModuleRecipe())


NAMED = """
import torch

def made():
    torch.manual_seed(3)
    x = torch.randn(8, 4)
    return torch.nn.Linear(4, 2), lambda m, b: ((m(b) - 1) ** 2).mean(), [x]

def raising():
    module, loss, batches = made()
    calls = []
    def bad(m, b):
        calls.append(1)
        if len(calls) == 6:
            raise ValueError("no such label")
        return loss(m, b)
    return module, bad, batches
"""


@pytest.fixture
def own_things(tmp_path, monkeypatch):
    (tmp_path / "own_things.py").write_text(NAMED)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_things", None)


@pytest.mark.process
def test_a_named_function_is_trained_behind_a_wall_from_any_thread(own_things, tmp_path):
    found = []
    keys = {"mem": "2GB", "steps": 6, "out": tmp_path / "run"}
    thread = threading.Thread(target=lambda: found.append(et.fit("own_things:made", **keys)))
    thread.start()
    thread.join()
    assert found[0].report["status"] == "done"
    assert found[0].report["wall"] != "none" or sys.platform != "linux"
    assert found[0].outputs["learned"].stat().st_size > 0


@pytest.mark.slow
def test_what_a_loss_behind_a_wall_raised_is_said_with_its_line(own_things, tmp_path):
    stopped = et.fit("own_things:raising", mem="2GB", steps=6, out=tmp_path / "raising")
    with pytest.raises(et.TrainingStopped, match=r"no such label \(.*own_things.py, line 15\)"):
        stopped.wait()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_thing:made", "PYTHONPATH"),
        ("__main__:made", "__main__ is none"),
        ("own_things:mad", "has no mad"),
        ("own_things", "must be package:function"),
        ("own_things:torch.nn", "has no torch.nn"),
    ],
)
def test_a_name_of_no_function_is_one_sentence(own_things, name, words):
    with pytest.raises(et.InputError, match=words):
        open_job(ModuleRecipe(module=name))


TOUCHING = """
from pathlib import Path
Path(__file__).with_name("was imported").touch()
from own_things import made
"""


def test_a_run_folder_alone_does_not_decide_what_is_imported(own_things, tmp_path, monkeypatch):
    out = tmp_path / "run"
    et.run(ModuleRecipe(module="own_things:made", steps=4, out=str(out)), walled=False)
    (tmp_path / "hostile.py").write_text(TOUCHING)
    text = (out / "recipe.toml").read_text()
    assert "own_things:made" in text
    (out / "recipe.toml").write_text(text.replace("own_things:made", "hostile:made"))
    quiet = Events(Said())
    for began in (True, False):
        if not began:
            (out / "journal.jsonl").unlink()
        with pytest.raises(et.EdgeTrainError, match="--module hostile:made"):
            session.resume(out, {}, quiet)
        with pytest.raises(et.EdgeTrainError, match=r"this run imports .*, not "):
            session.resume(out, {"module": "own_things:made"}, quiet)
    assert not (tmp_path / "was imported").exists()


@pytest.mark.process
def test_a_run_of_a_named_function_goes_on_when_it_is_named_again(own_things, tmp_path):
    out = tmp_path / "run"
    et.run(ModuleRecipe(module="own_things:made", steps=4, out=str(out)), walled=False)
    with pytest.raises(et.EdgeTrainError, match="--module own_things:made"):
        et.resume(out, steps=6).wait()
    again = et.resume(out, steps=6, module="own_things:made")
    assert again.report["steps"] == 6


def test_a_fit_says_that_its_plan_leaves_activations_out(tmp_path):
    run = et.fit(module(), loss, BATCHES, steps=4, out=tmp_path / "run")
    assert any("plan leaves activations out" in note for note in run.report["notices"])


def test_code_is_not_named_for_a_run_that_imports_none(tmp_path):
    et.fit(module(), loss, BATCHES, steps=4, out=tmp_path / "run")
    with pytest.raises(et.EdgeTrainError, match="leave --module out"):
        session.resume(tmp_path / "run", {"module": "own_things:made"}, Events(Said()))
