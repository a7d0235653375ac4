"""An output layer that is trained: losses and gradients of autograd, and logits in pieces.

Held to 1e-4 of a block's gradient: sums of the same float32 numbers in another order, and logits
that are made twice.
"""

import subprocess
import sys

import numpy as np
import pytest

from edge_train.arrays.factored import Remade, dense
from edge_train.estimators.backprop import Backprop
from edge_train.formats.language_folder import open_language_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLOSE = 1e-4
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
KINDS = {
    "llama": {},
    "phi": {},  # the layer has a bias
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0, "tie_word_embeddings": True},
    "cohere": {"logit_scale": 3.0, "tie_word_embeddings": True},
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    found = {}

    def place(kind):
        if kind not in found:
            config = transformers.AutoConfig.for_model(kind, **{**SIZES, **KINDS[kind]})
            with torch.random.fork_rng():
                torch.manual_seed(0)
                network = transformers.AutoModelForCausalLM.from_config(config).eval()
                if kind == "phi":
                    torch.nn.init.normal_(network.lm_head.bias)
            network.save_pretrained(root / kind)
            found[kind] = open_language_model(root / kind), network
        return found[kind]

    return place


def opened(folder, at_once=None, **options):
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    runtime = TorchLanguageModel.open(folder, quant="none", threads=1, seed=0, **options)
    if at_once is not None:
        runtime._logits_at_once = at_once
    return runtime


def batch_of(smoothing=0.0, counted=True):
    draw = np.random.default_rng(0)
    batch = {"ids": draw.integers(0, 60, (3, 12))}
    if smoothing:
        batch["smoothing"] = np.full(3, smoothing, np.float32)
    if counted:
        weight = draw.uniform(0, 1, (3, 11)).astype(np.float32)
        weight[:, :6] = 0
        batch["weight"] = weight
    return batch


def wanted(network, batch):
    """Return the losses of plain autograd, and leave gradients in the network."""
    network.zero_grad()
    ids = torch.from_numpy(batch["ids"])
    logits = network(input_ids=ids[:, :-1], use_cache=False).logits
    smoothing = float(batch["smoothing"][0]) if "smoothing" in batch else 0.0
    each = torch.nn.functional.cross_entropy(
        logits.mT, ids[:, 1:], reduction="none", label_smoothing=smoothing
    )
    weight = batch.get("weight", np.full(each.shape, 1 / each.shape[1], np.float32))
    losses = (each * torch.from_numpy(weight)).sum(1)
    losses.mean().backward()
    return losses.detach().numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_in_pieces_are_those_of_autograd(places, kind, smoothing):
    folder, network = places(kind)
    batch = batch_of(smoothing)
    expected = wanted(network, batch)
    runtime, found = opened(folder, 7 * 60), {}
    losses = runtime.backward(batch, lambda name, gradient: found.update({name: gradient}))
    np.testing.assert_allclose(losses, expected, rtol=CLOSE)
    held = runtime.forward(batch, [runtime.parameters])[0]
    np.testing.assert_allclose(held, expected, rtol=CLOSE)
    head = [g for g in found.values() if isinstance(getattr(g, "rest", g), Remade)]
    assert len(head) == 1  # else logits are whole, and nothing is tested here
    for name, parameter in network.named_parameters():
        size = np.linalg.norm(parameter.grad.numpy())
        assert np.linalg.norm(dense(found[name]) - parameter.grad.numpy()) < CLOSE * size, name


def test_positions_without_weight_have_no_logits(places, monkeypatch):
    from edge_train.runtimes.torch import held_layers

    folder, _ = places("llama")
    runtime, counted = opened(folder), []
    times = held_layers.HeldHead.forward_product
    monkeypatch.setattr(
        held_layers.HeldHead,
        "forward_product",
        lambda self, values: counted.append(len(values)) or times(self, values),
    )
    runtime.forward(batch_of(), [runtime.parameters])
    assert sum(counted) == 3 * 5  # of 3 * 11


def test_a_network_without_halves_gives_the_same(places, monkeypatch):
    from edge_train.runtimes.torch import language_model

    folder, _ = places("llama")
    found = []
    for halves in (language_model.halves_of, lambda *_: None):
        monkeypatch.setattr(language_model, "halves_of", halves)
        gradients = {}
        losses = opened(folder).backward(
            batch_of(), lambda name, gradient, into=gradients: into.update({name: dense(gradient)})
        )
        found.append((losses, gradients))
    (losses, gradients), (others, whole) = found
    np.testing.assert_allclose(losses, others, rtol=CLOSE)
    for name, value in whole.items():
        assert np.linalg.norm(gradients[name] - value) < CLOSE * np.linalg.norm(value), name


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_weights_that_are_subtracted_row_by_row_as_they_are_read_end_where_they_should(
    places, kind, monkeypatch
):
    """Errors of some words are made from the weights of these words, before they change."""
    from edge_train.arrays import factored
    from edge_train.rng import Key

    monkeypatch.setattr(factored, "_TILE_NUMBERS", 32 * 7)  # seven rows
    monkeypatch.setattr(factored, "AHEAD_NUMBERS", 32 * 20)  # made for twenty of them
    folder, network = places(kind)
    batch = batch_of()
    wanted(network, batch)
    runtime = opened(folder)

    def descend(name, gradient):
        factored.scale(gradient, 5.0)
        runtime.parameters.subtract(name, gradient, Key(0, 0))

    runtime.backward(batch, descend)
    for name, parameter in network.named_parameters():
        change = 5.0 * parameter.grad.numpy()
        moved = parameter.detach().numpy() - runtime.parameters[name]
        assert np.linalg.norm(moved - change) < 1e-3 * np.linalg.norm(change), name


def test_parts_of_a_step_are_added_up_without_making_errors_whole(places):
    """Those of three parts stand for each other, with a row of a table where it is tied."""
    from edge_train.optim.sums import Sums
    from edge_train.optim.transforms import Adam

    folder, _ = places("gemma2")
    runtime, sums, rule = opened(folder), Sums(), Adam()
    name, whole = "model.embed_tokens.weight", {}
    Backprop().estimate(runtime, None, batch_of(), None, lambda n, g: whole.update({n: g}))
    found = {}

    def add(block, part):
        if block == name:
            total = sums.total(block, part, rule, {}, runtime.parameters[name])
            found.update({} if total is None else {name: total})

    class Task:
        pass

    Backprop(1).estimate(runtime, Task(), batch_of(), None, add)
    assert isinstance(found[name].rest, Remade)
    expected = dense(whole[name])
    assert np.linalg.norm(dense(found[name]) - expected) < CLOSE * np.linalg.norm(expected)


_PEAK = """
import sys
from pathlib import Path
import numpy as np
from edge_train.formats.language_folder import open_language_model
from edge_train.memory.measure import give_back_memory, measure
from edge_train.rng import Key
from edge_train.runtimes.torch.language_model import TorchLanguageModel

folder, words, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
runtime = TorchLanguageModel.open(
    open_language_model(Path(folder)), quant="none", threads=1, seed=0, lean=True
)
apply = lambda name, gradient: runtime.parameters.subtract(name, gradient, Key(0, 0))
runtime.backward({"ids": np.ones((1, 3), np.int64)}, apply)  # code is read, buffers are made
give_back_memory()
Path("/proc/self/clear_refs").write_text("5")
before = measure().peak_bytes
ids = np.random.default_rng(0).integers(0, words, (1, tokens + 1))
runtime.backward({"ids": ids}, apply)
print(measure().peak_bytes - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset through /proc")
@pytest.mark.process
def test_a_step_never_holds_the_logits_of_its_tokens(tmp_path):
    words, tokens = 60_000, 400
    config = transformers.AutoConfig.for_model("llama", **{**SIZES, "vocab_size": words})
    config.max_position_embeddings = tokens
    config.save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path), str(words), str(tokens)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logits = 4 * tokens * words
    assert int(done.stdout) < 0.5 * logits  # of which there were four at once
