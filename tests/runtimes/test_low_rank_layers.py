"""Directions in which the inputs of adapted layers vary, against a decomposition of the inputs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_train.formats.adapter import Adapter, Target, names_of  # noqa: E402
from edge_train.runtimes.torch.low_rank_layers import LowRankLayers  # noqa: E402

TARGETS = (Target("net.0", 5, 6), Target("net.1", 3, 5))


def test_spans_are_those_of_the_largest_singular_values_of_all_inputs_of_a_call():
    draws = np.random.default_rng(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            values = np.random.default_rng(number).standard_normal(parameter.shape)
            parameter.copy_(torch.from_numpy(values))
    layers = LowRankLayers({"net": network}, TARGETS, 1.0)
    adapter = Adapter("lora", 2, 2.0, TARGETS)
    layers.take(adapter.drawn(0), torch.device("cpu"), trained=False)
    # two strong directions: what four rounds leave of the others is far below the tolerance
    rows = draws.standard_normal((40, 6)) * np.array([100.0, 30.0, 0.01, 0.01, 0.01, 0.01])
    parts = [torch.from_numpy(part.astype(np.float32)) for part in np.split(rows, 2)]
    seen = []

    def call():
        with torch.no_grad():
            seen[:] = [network[0](part[None]).numpy()[0] for part in parts]
            for hidden in seen:
                network[1](torch.from_numpy(hidden)[None])

    spans = layers.input_spans(call, 2)
    assert not any(module._forward_pre_hooks for module in network.modules())
    for target, inputs in zip(TARGETS, (rows, np.concatenate(seen)), strict=True):
        span = spans[names_of(target.path)[0]]
        assert span.shape == (2, target.inputs) and span.dtype == np.float32
        np.testing.assert_allclose(span @ span.T, np.eye(2), atol=1e-5)
        wanted = np.linalg.svd(inputs, full_matrices=False)[2][:2]
        np.testing.assert_allclose(span.T @ span, wanted.T @ wanted, atol=1e-3)
