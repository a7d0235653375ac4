"""Logits of the next token with what was read kept: those of reading all of it again.

Held to 1e-4 of the largest: sums of the same numbers in another order, through a few layers.
"""

import numpy as np
import pytest
from gguf_models import make_gguf

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CLOSE = 1e-4
IDS = np.random.default_rng(0).integers(3, 250, 40).tolist()


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])  # the last two have windows
def test_texts_that_begin_alike_are_read_once_with_the_same_logits(tmp_path, name):
    from edge_train.runtimes.torch.cached_logits import CachedLogits

    network = make_gguf(tmp_path / "a.gguf", name)
    read = []
    network.register_forward_pre_hook(
        lambda *found: read.append(found[2]["input_ids"].shape[1]), with_kwargs=True
    )
    cached = CachedLogits(network)
    other = [*IDS[:12], 7, 8]
    for ids, new in ((IDS[:20], 20), (IDS[:21], 1), (IDS, 19), (other, 2), (IDS[:13], 1)):
        read.clear()
        found = cached.next_logits(ids)
        assert sum(read) == new
        with torch.no_grad():
            wanted = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()
        assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()


def test_long_texts_are_read_in_pieces(tmp_path, monkeypatch):
    from edge_train.runtimes.torch import cached_logits

    monkeypatch.setattr(cached_logits, "_AT_ONCE", 7)
    network = make_gguf(tmp_path / "a.gguf", "mistral")
    found = cached_logits.CachedLogits(network).next_logits(IDS)
    with torch.no_grad():
        wanted = network(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, -1].numpy()
    assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()
