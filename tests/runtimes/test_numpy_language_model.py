"""Adapters in NumPy learn from GGUF what transformers learns: same loss, same gradient."""

import numpy as np
import pytest
from gguf_models import KINDS, make_gguf

from edge_train.formats.adapter import Adapter, Target, names_of
from edge_train.formats.gguf.model import open_gguf
from edge_train.runtimes.numpy.decoder import decoder_of
from edge_train.runtimes.numpy.language_model import NumpyLanguageModel

torch = pytest.importorskip("torch")

# Both compute in float32, by products in another order: some last bits for every layer.
CLOSE = 1e-4
RANK, LENGTH = 4, 40  # longer than the windows, and than what LongRoPE was trained on


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_losses_gradients_and_logits_are_those_of_transformers(tmp_path, kind):
    network = make_gguf(tmp_path / "model.gguf", kind)
    folder = open_gguf(tmp_path / "model.gguf")
    entries = folder.files[0].entries
    paths = decoder_of(folder.config, folder.path).linear_layers()
    targets = tuple(Target(path, *entries[f"{path}.weight"].shape) for path in paths)
    adapter = Adapter("lora", RANK, 8.0, targets)
    draw = np.random.default_rng(0)
    blocks = {
        name: (0.1 * draw.standard_normal(shape)).astype(np.float32)
        for name, shape in adapter.shapes().items()
    }
    model = NumpyLanguageModel.open(folder, adapter, seed=0, blocks=blocks)
    ids = draw.integers(0, folder.vocabulary, (2, LENGTH + 1))
    found = {}
    losses = model.backward({"ids": ids}, found.__setitem__)

    weights = {}
    for path in paths:
        first, second, _ = names_of(path)
        parameter = weights[path] = network.get_parameter(f"{path}.weight")
        with torch.no_grad():
            parameter += torch.from_numpy(adapter.scale * blocks[second] @ blocks[first])
    logits = network(torch.from_numpy(ids[:, :-1])).logits
    tokens = torch.from_numpy(ids[:, 1:])
    each = torch.nn.functional.cross_entropy(logits.mT, tokens, reduction="none").mean(1)
    each.mean().backward()

    np.testing.assert_allclose(losses, each.detach().numpy(), rtol=CLOSE)
    assert len(found) == 2 * len(paths)
    for path in paths:  # the chain rule from the gradient of W + scale * B A
        first, second, _ = names_of(path)
        whole = adapter.scale * weights[path].grad.numpy()
        for name, wanted in (
            (second, whole @ blocks[first].T),
            (first, blocks[second].T @ whole),
        ):
            assert np.linalg.norm(found[name] - wanted) <= CLOSE * np.linalg.norm(wanted), name
    last = logits[0, -1].detach().numpy()
    model.next_logits(ids[0, :9].tolist())
    next_ones = model.next_logits(ids[0, :-1].tolist())
    np.testing.assert_allclose(next_ones, last, rtol=CLOSE, atol=CLOSE * abs(last).max())
    # back to so short a text that positions turn as they did at first
    shorter = logits_of(network, ids[:1, :10])
    again = model.next_logits(ids[0, :10].tolist())
    np.testing.assert_allclose(again, shorter, rtol=CLOSE, atol=CLOSE * abs(shorter).max())


def logits_of(network, ids):
    with torch.no_grad():
        return network(torch.from_numpy(ids)).logits[0, -1].numpy()
