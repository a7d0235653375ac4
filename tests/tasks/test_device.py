"""`--device auto` takes a card that has room, else the CPU; a cap is about one memory."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

import torch
from fake_cuda import GB, FakeCuda

from edge_train.errors import InputError
from edge_train.memory.guard import Guard
from edge_train.memory.link import Link
from edge_train.memory.measure import measure
from edge_train.memory.watch import Watch
from edge_train.run import training
from edge_train.runtimes.torch import card_memory
from edge_train.runtimes.torch.card import products_type
from edge_train.runtimes.torch.card_memory import CardMemory, limit_memory
from edge_train.tasks import device
from edge_train.tasks.job import HasCard

CARD = torch.device("cuda")


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.setattr(device, "has_driver", lambda: True)


def test_auto_is_a_card_with_room_for_the_weights_and_a_step(driver, monkeypatch):
    cuda = FakeCuda(8 * GB).install(monkeypatch)
    where, why = device.settle("auto", "classify", 5 * GB)
    assert where == "cuda" and "8 GB free" in why and "--host-mem" in why
    cuda.free = 6 * GB
    where, why = device.settle("auto", "classify", 5 * GB)
    assert where == "cpu" and "6 GB free" in why and "about 7 GB" in why
    assert device.settle("cuda", "classify", 5 * GB) == ("cuda", "")  # asked for all the same


def test_a_driver_without_a_card_that_torch_sees_is_said(driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    where, why = device.settle("auto", "classify", 0)
    assert where == "cpu" and "torch sees no card" in why
    with pytest.raises(InputError, match="torch finds none; use --device cpu"):
        device.settle("cuda", "classify", 0)


def test_without_a_driver_auto_is_the_cpu_and_nothing_is_said(monkeypatch):
    monkeypatch.setattr(device, "has_driver", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch was asked"))
    assert device.settle("auto", "classify", 0) == ("cpu", "")
    with pytest.raises(InputError, match="device 'qnn' is not for task 'classify'"):
        device.settle("qnn", "classify", 0)


def test_features_are_computed_on_a_card_only_where_that_is_asked_for(driver, monkeypatch):
    FakeCuda().install(monkeypatch)
    assert device.features_device("auto", "images", "torch") == "cpu"
    assert device.features_device("cuda", "images", "torch") == "cuda"
    with pytest.raises(
        InputError, match="device 'cuda' is not for task 'images' with engine 'onnx'"
    ):
        device.features_device("cuda", "images", "onnx")


@pytest.mark.parametrize(
    ("capability", "kind"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_products_are_in_bfloat16_where_a_card_has_units_for_it(monkeypatch, capability, kind):
    cuda = FakeCuda().install(monkeypatch)
    cuda.capability = capability
    assert products_type(CARD) == kind
    assert products_type(torch.device("cpu")) == "float32"


class Driver:
    """Counts what our process holds on a card."""

    def __init__(self, held):
        self.held = held

    def sample(self):
        return self.held


def test_a_cap_leaves_room_for_the_context_that_the_driver_counts(monkeypatch):
    cuda = FakeCuda(8 * GB).install(monkeypatch)
    monkeypatch.setattr(card_memory, "open_gpu_memory", lambda: Driver(GB // 2))
    beside = GB // 2 + card_memory._KERNEL_BYTES
    limit_memory(CARD, 2 * GB)
    assert cuda.shares == [pytest.approx((2 * GB - beside) / (8 * GB))]
    with pytest.raises(InputError, match=r"--mem is 600 MB, and computing on the GPU takes about"):
        limit_memory(CARD, 600_000_000)
    limit_memory(CARD, None)
    assert len(cuda.shares) == 1


def test_memory_that_an_integrated_card_shares_is_counted_once(monkeypatch):
    """Of a Jetson: its allocator's bytes are the machine's, and no process holds them."""
    cuda = FakeCuda(8 * GB, integrated=True).install(monkeypatch)
    card = CardMemory(CARD)
    cuda.reserved = GB
    assert (card.peak_bytes(), card.shared_bytes()) == (0, GB)
    here = measure().resident_bytes
    usage = Guard(None, card.peak_bytes, shared_bytes=card.shared_bytes).usage()
    assert GB < usage.resident_bytes < GB + 2 * here + 50_000_000
    limit_memory(CARD, 4 * GB)  # what this process holds beside it is off the cap
    left = 8 * GB * cuda.shares[0]
    assert 0 < left < 4 * GB - 0.5 * here


@pytest.mark.parametrize("integrated", [False, True])
def test_the_watch_looks_after_the_memory_that_the_cap_is_about(monkeypatch, integrated):
    cuda = FakeCuda(8 * GB, integrated=integrated).install(monkeypatch)
    card = CardMemory(CARD)
    cuda.reserved = GB
    runtime = SimpleNamespace(card=card, device="cuda", pages=None, batch_limit=None)
    assert isinstance(runtime, HasCard)
    watch = Watch(None)
    watch.gpu = counts = object()
    recipe = SimpleNamespace(cap_bytes=6 * GB, host_cap_bytes=None, batch_limit=None)
    training._set_to_work(Link(watch), recipe, runtime)
    # of a card with memory of its own, nothing was named for the host; else all of it is here
    assert (watch.cap_bytes, watch.gpu) == ((5 * GB, None) if integrated else (None, counts))


def test_a_card_that_is_gone_leaves_what_was_measured(monkeypatch):
    cuda = FakeCuda(8 * GB, integrated=True).install(monkeypatch)
    card = CardMemory(CARD)
    cuda.reserved = 7
    assert card.shared_bytes() == 7
    cuda.gone = True
    card.give_back()
    assert card.shared_bytes() == 7
