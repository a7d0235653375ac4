"""A small network and samples that it can learn, for tests of methods that train block by block."""

from types import SimpleNamespace

import numpy as np

from edge_train.arrays.parameters import Parameters
from edge_train.estimators.layerwise.relatives import local_heads
from edge_train.formats.network import initial_parameters, parse
from edge_train.runtimes.numpy.network import NumpyNetwork

CLASSES = 3
NETWORKS = {
    "dense": ("mlp 24 16", (10,)),
    "relu": ("mlp 24 relu", (10,)),
    "conv": ("conv 6 3, tanh, maxpool 2, conv 6 3, batchnorm, tanh", (8, 8, 1)),
    "gru": ("gru 12 12", (6, 4)),
}


def samples(shape, count=60, seed=0):
    """Return a batch: every class is a pattern of its own plus noise."""
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).standard_normal((CLASSES, *shape))
    labels = random.integers(0, CLASSES, count)
    inputs = patterns[labels] + 0.5 * random.standard_normal((count, *shape))
    return {"inputs": inputs.astype(np.float32), "labels": labels}


def problem(name, view="auto", kind=Parameters, count=60):
    """Return network, runtime and batch; heads for local classifiers are among the parameters."""
    text, shape = NETWORKS[name]
    network = parse(text, shape, CLASSES)
    blocks = dict(initial_parameters(network, 1)) | local_heads(network.blocks, view, CLASSES)
    batch = samples(shape, count)
    runtime = NumpyNetwork(network, kind(blocks), batch["inputs"])
    return SimpleNamespace(network=network, runtime=runtime, batch=batch)
