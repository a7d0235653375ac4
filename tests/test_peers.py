"""litgpt and torchtune train what peft trains: the same loss, and gradients of the same length.

Not in the usual tests: both bring many packages, and torchtune an old one of torchao.

    pip install litgpt torchtune 'torchao<0.14'
    python -m pytest -m slow tests/test_peers.py
"""

import sys

import peft
import pytest
import torch
from gguf_models import VOCABULARY, make_gguf

from edge_train.bench.peers_frameworks import FRAMEWORKS, is_installed, open_network

RANK = 4


def of_second_factors(network):
    """Return how many second factors have a gradient, and the length of all; rows may be moved."""
    grads = [
        parameter.grad
        for name, parameter in network.named_parameters()
        if "lora_b" in name.lower() and parameter.grad is not None
    ]
    return len(grads), float(torch.sqrt(sum((grad**2).sum() for grad in grads)))


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_begins_with_the_loss_and_the_gradient_of_peft(name, tmp_path, monkeypatch):
    if not is_installed(name):
        pytest.skip(f"{name} is not installed: {FRAMEWORKS[name][1]}")
    threads, usual = torch.get_num_threads(), torch.get_default_dtype()
    model, start = tmp_path / "model.gguf", tmp_path / "start"
    plain = make_gguf(model, "smollm")
    asked = peft.LoraConfig(r=RANK, lora_alpha=8, target_modules="all-linear")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchao", None)  # peft refuses the one that torchtune needs
        adapted = peft.get_peft_model(plain, asked)
    adapted.save_pretrained(start)
    ids = torch.arange(40)[None] * 7 % VOCABULARY
    wanted = adapted(input_ids=ids, labels=ids, use_cache=False).loss
    wanted.backward()
    try:
        network, loss = open_network(name, model, start, "float32")
        found = loss(ids)
        found.backward()
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(usual)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    layers = adapted.config.num_hidden_layers
    count, length = of_second_factors(network)
    assert count == (5 if name == "litgpt" else 7) * layers  # q, k and v are one there
    assert length == pytest.approx(of_second_factors(adapted)[1], rel=1e-4)
    assert not any(
        p.requires_grad for n, p in network.named_parameters() if "lora" not in n.lower()
    )
