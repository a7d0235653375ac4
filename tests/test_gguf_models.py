"""A language model in a GGUF file: transformers' loss, and a run whose result transformers reads.

A loss is held to 1e-4 of itself, for the reason that tests/test_architectures.py gives.
"""

import numpy as np
import pytest
from gguf_files import F32, Q4_0, Q8_0
from gguf_models import KINDS, make_gguf

from edge_train.formats.gguf.model import open_gguf

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLOSE, LENGTH = 1e-4, 16
CASES = [(name, F32) for name in KINDS] + [("llama", Q8_0), ("gemma3", Q4_0), ("phi3", Q8_0)]


def wanted_loss(network, ids):
    tokens = torch.from_numpy(ids)
    with torch.no_grad():
        logits = network(input_ids=tokens[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_loss_is_that_of_transformers(name, kind, tmp_path):
    from edge_train.runtimes.torch.language_model import TorchLanguageModel

    network = make_gguf(tmp_path / "a.gguf", name, kind)
    model = open_gguf(tmp_path / "a.gguf")
    runtime = TorchLanguageModel.open(model, quant="none", threads=1, seed=0)
    ids = np.random.default_rng(0).integers(3, 300, (3, LENGTH + 1))
    found = runtime.forward({"ids": ids}, [runtime.parameters]).mean()
    assert found == pytest.approx(wanted_loss(network, ids), rel=CLOSE)
