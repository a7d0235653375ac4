"""`et.fit(device="cuda")` on the stand-in of a card: numbers of the host, and none left there."""

from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from stand_in_card import CARD, on_card
from torch import nn

import edge_train as et
from edge_train.errors import InputError
from edge_train.runtimes.torch import own_module
from edge_train.tasks.module import job


class Pair(NamedTuple):
    inputs: torch.Tensor
    labels: list


BATCHES = [
    Pair(
        torch.randn(6, 5, generator=torch.Generator().manual_seed(i)),
        [{"label": torch.arange(6) % 3}, "a name"],
    )
    for i in range(5)
]


def module():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


def loss(given, batch):
    return nn.functional.cross_entropy(given(batch.inputs), batch.labels[0]["label"])


def fitted(out, device, method):
    mine = module()
    run = et.fit(mine, loss, BATCHES, steps=6, method=method, out=out, device=device, threads=1)
    return run.report, mine


@pytest.mark.parametrize("method", ["adamw", "galore", "zo"])
def test_a_module_learns_on_a_card_what_it_does_on_the_host(tmp_path, monkeypatch, method):
    expected, theirs = fitted(tmp_path / "host", "cpu", method)
    monkeypatch.setattr(job, "settle", lambda *_: ("cuda", ""))
    with on_card(monkeypatch, own_module, calls=200):
        found, mine = fitted(tmp_path / "card", "cuda", method)
    assert (expected["device"], found["device"]) == ("cpu", CARD.type)
    for name in ("first", "last", "best"):
        assert found["eval"][name] == pytest.approx(expected["eval"][name], rel=1e-3)
    for (name, value), other in zip(
        mine.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        assert value.device.type == "cpu"
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-3, err_msg=name)
    moved = not torch.equal(mine[1].running_mean, torch.zeros(8))
    assert moved == (method != "zo")  # by steps with gradients alone; they came back
    assert all(one.grad is None for one in mine.parameters())


def test_a_card_that_is_not_there_is_one_sentence_and_nothing_is_made(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(InputError, match="device 'cuda' was asked for, but torch finds none"):
        et.fit(module(), loss, BATCHES, out=tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


def test_a_module_that_cannot_be_copied_is_one_sentence():
    mine = module()
    mine.kept = torch.ones(2, requires_grad=True) * 2  # deepcopy takes no tensor of a graph
    with pytest.raises(InputError, match="cannot be copied to a card"):
        own_module.ModuleCopy(mine, [], CARD)
