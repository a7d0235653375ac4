"""Layers in NumPy: outputs and gradients are those of torch, and of finite differences."""

import numpy as np
import pytest

from edge_train.arrays.parameters import Parameters
from edge_train.formats.network import initial_parameters, parse
from edge_train.runtimes.numpy.network import NumpyNetwork

PICTURE, SEQUENCE = (8, 6, 2), (5, 3)
NETWORKS = {
    "dense": ("dense 7, tanh, dense 5, relu, dense 4, sigmoid", (6,)),
    "conv": ("conv 4 3, tanh, conv 3 3 valid, relu", PICTURE),
    "even kernel": ("conv 4 2 valid, tanh", PICTURE),
    "pools": ("conv 4 3, tanh, maxpool 2, conv 3 3, tanh, meanpool 3", PICTURE),
    "norms": ("conv 4 3, batchnorm, tanh, conv 3 3, layernorm, relu, dense 6, batchnorm", PICTURE),
    "rnn": ("rnn 4, rnn 3", SEQUENCE),
    "gru": ("gru 4, gru 3", SEQUENCE),
    "lstm": ("lstm 4, layernorm, lstm 3, tanh", SEQUENCE),
    "rows of a picture": ("gru 4", PICTURE),
}


def opened(text, shape, dtype=np.float32, samples=5):
    """Return a network with random parameters and a batch."""
    network = parse(text, shape, 3)
    random = np.random.default_rng(0)
    blocks = dict(initial_parameters(network, 1))
    for block in blocks.values():
        block += 0.2 * random.standard_normal(block.shape).astype(np.float32)
    batch = {
        "inputs": random.standard_normal((samples, *shape)).astype(dtype),
        "labels": random.integers(0, 3, samples),
    }
    return NumpyNetwork(network, Parameters(blocks)), batch


def gradients(runtime, batch):
    found = {}
    losses = runtime.backward(batch, found.__setitem__)
    return losses, found


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def case(request):
    return opened(*request.param)


def test_every_parameter_gets_one_gradient_of_its_shape(case):
    runtime, batch = case
    seen = []
    runtime.backward(batch, lambda name, gradient: seen.append((name, gradient.shape)))
    assert sorted(seen) == sorted((n, b.shape) for n, b in runtime.parameters.items())


@pytest.mark.parametrize(("text", "shape"), NETWORKS.values(), ids=NETWORKS.keys())
def test_gradients_are_slopes_of_the_loss(text, shape):
    """Central differences along random directions; smooth layers only, a kink has two slopes."""
    runtime, batch = opened(text.replace("relu", "tanh").replace("maxpool", "meanpool"), shape)
    _, exact = gradients(runtime, batch)
    random = np.random.default_rng(3)
    for name, block in runtime.parameters.items():
        direction = random.standard_normal(block.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        losses = []
        for radius in (2e-3, -2e-3):
            block += np.float32(radius) * direction
            losses.append(runtime.backward(batch, lambda *_: None).mean(dtype=np.float64))
            block -= np.float32(radius) * direction
        slope = (losses[0] - losses[1]) / 4e-3
        assert slope == pytest.approx(np.sum(exact[name] * direction), abs=2e-3, rel=0.02), name


def test_micro_batches_add_up_to_the_whole_gradient():
    runtime, batch = opened("conv 4 3, tanh, maxpool 2, dense 6, tanh", PICTURE)
    whole_losses, whole = gradients(runtime, batch)
    parts = NumpyNetwork(runtime.network, runtime.parameters, micro_batch=2)
    losses, found = gradients(parts, batch)
    # float32 sums in another order; so other kernels differ, too
    np.testing.assert_allclose(losses, whole_losses, rtol=1e-5)
    for name, gradient in whole.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_local_gradient_takes_inputs_and_earlier_rows_for_constants():
    runtime, batch = opened("gru 4, gru 3", SEQUENCE)
    outputs, tape = runtime.run(0, batch["inputs"])
    error = np.random.default_rng(1).standard_normal(outputs.shape).astype(np.float32)
    found = {}
    assert runtime.backward_stage(0, tape, error.copy(), found.__setitem__, "row") is None
    # The same from one row at a time, each starting from the state that was before it.
    total = {name: np.zeros_like(value) for name, value in found.items()}
    for row in range(SEQUENCE[0]):
        only = np.zeros_like(error)
        only[:, row] = error[:, row]
        part = {}
        runtime.backward_stage(0, tape, only, part.__setitem__, "row")
        for name, value in part.items():
            total[name] += value
    for name, value in found.items():
        np.testing.assert_allclose(total[name], value, rtol=1e-4, atol=1e-5)
    exact = {}
    runtime.backward_stage(0, tape, error.copy(), exact.__setitem__, "rows")
    assert not np.allclose(exact["0.recurrent"], found["0.recurrent"], rtol=1e-2)


def test_batch_normalization_judges_a_sample_alone_after_calibration():
    text, shape = NETWORKS["norms"]
    runtime, batch = opened(text, shape, samples=64)
    calibrated = NumpyNetwork(runtime.network, runtime.parameters, batch["inputs"])
    together = calibrated.forward(batch, [runtime.parameters])[0]
    np.testing.assert_allclose(
        together, runtime.backward(batch, lambda *_: None), rtol=1e-3, atol=1e-5
    )
    alone = {name: value[:1] for name, value in batch.items()}
    np.testing.assert_allclose(
        calibrated.forward(alone, [runtime.parameters])[0], together[:1], rtol=1e-4
    )


def test_statistics_of_parts_are_those_of_the_whole():
    text, shape = NETWORKS["norms"]
    runtime, batch = opened(text, shape, samples=64)
    found = [
        NumpyNetwork(runtime.network, runtime.parameters, batch["inputs"], together=size)
        for size in (64, 10)
    ]
    whole, parts = (one.calibrated(runtime.parameters) for one in found)
    assert whole.keys() == parts.keys() and whole
    for place, values in whole.items():
        for one, other in zip(values, parts[place], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def torch_loss(torch, runtime, tensors, batch):
    """Return the mean cross entropy of the same network, written with torch's own layers."""
    functional = torch.nn.functional
    value = torch.from_numpy(batch["inputs"])
    for block in runtime.blocks:
        part = {n.split(".")[1]: t for n, t in tensors.items() if n.split(".")[0] == block.name}
        for layer in block.layers:
            match type(layer).__name__, getattr(layer, "kind", ""):
                case "Dense", _:
                    value = functional.linear(value, part["weight"], part["bias"])
                case "Convolution", _:
                    weight = part["weight"].unflatten(1, (layer.kernel, layer.kernel, -1))
                    value = functional.conv2d(
                        value.movedim(-1, 1),
                        weight.movedim(-1, 1),
                        part["bias"],
                        padding=layer.padding,
                    ).movedim(1, -1)
                case "Recurrent", kind:
                    module = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
                    net = module[kind](value.shape[-1], layer.units, batch_first=True)
                    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
                    own = [part["weight"], part["recurrent"], part["bias"]]
                    own.append(torch.zeros_like(part["bias"]))
                    own = dict(zip(names, own, strict=True))
                    value = torch.func.functional_call(net, own, (value,))[0]
                case "Activation", kind:
                    value = getattr(torch, kind)(value)
                case "Normalization", "batch":
                    axes = tuple(range(value.ndim - 1))
                    spread, mean = torch.var_mean(value, axes, correction=0, keepdim=True)
                    value = (value - mean) / (spread + 1e-5).sqrt()
                    value = value * part["scale"] + part["shift"]
                case "Normalization", _:
                    shape = value.shape[-1:] if value.ndim == 3 else value.shape[1:]
                    value = functional.layer_norm(value, shape)
                    value = value * part["scale"] + part["shift"]
                case "Pool", kind:
                    pool = functional.max_pool2d if kind == "max" else functional.avg_pool2d
                    value = pool(value.movedim(-1, 1), layer.size).movedim(1, -1)
                case "Reshape", "flat":
                    value = value.flatten(1)
                case "Reshape", "rows":
                    value = value.flatten(2)
                case "Reshape", _:
                    value = value[:, -1]
    return functional.cross_entropy(value, torch.from_numpy(batch["labels"]))


def test_losses_and_gradients_are_those_of_torch(case):
    torch = pytest.importorskip("torch")
    runtime, batch = case
    losses, found = gradients(runtime, batch)
    tensors = {n: torch.tensor(b, requires_grad=True) for n, b in runtime.parameters.items()}
    loss = torch_loss(torch, runtime, tensors, batch)
    loss.backward()
    assert losses.mean() == pytest.approx(loss.item(), rel=1e-5)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(
            found[name], tensor.grad.numpy(), rtol=1e-3, atol=2e-6, err_msg=name
        )
