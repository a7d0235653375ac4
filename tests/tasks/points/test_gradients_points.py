"""Losses of clouds and the slicer against torch, which differentiates by itself."""

import numpy as np
import pytest
import torch

from edge_train.arrays.parameters import Parameters
from edge_train.tasks.points.distances import chamfer, sliced, steepest, uniform
from edge_train.tasks.points.engine import CloudEngine
from edge_train.tasks.points.network import Autoencoder, Shape, start_of
from edge_train.tasks.points.slicer import SHAPES, Slicer, heights, turn_of, turned
from edge_train.tasks.points.slicer import start_of as start_of_slicer

SHAPE = Shape(points=20, code=6, width=8, decoder="mlp")


def clouds(count=1, points=20, seed=0):
    found = np.random.default_rng(seed).standard_normal((count, points, 3)).astype(np.float32)
    return found if count > 1 else found[0]


def close(found, wanted):
    wanted = wanted.detach().numpy() if isinstance(wanted, torch.Tensor) else wanted
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-5)  # float32, in other orders


def torch_sliced(x, y, directions):
    on_x, on_y = (torch.sort(directions @ one.T, dim=1)[0] for one in (x, y))
    return (on_x - on_y).square().mean(1)


def test_sliced_distance_and_its_gradients_are_those_of_sorting_in_torch():
    x, y = clouds(seed=1), clouds(seed=2)
    directions = uniform(np.random.default_rng(3), 7)
    values, moves, turns = sliced(x, y, directions)
    there, along = (torch.tensor(one, requires_grad=True) for one in (y, directions))
    wanted = torch_sliced(torch.tensor(x), there, along)
    wanted.sum().backward()
    close(values, wanted)
    close(turns, along.grad)
    close(moves, there.grad / len(directions))


def test_sliced_distance_on_a_line_is_the_wasserstein_distance_of_matched_points():
    x = np.array([[0, 0, 0], [1, 0, 0], [5, 0, 0]], np.float32)
    y = x[[2, 0, 1]] + np.array([2, 9, 9], np.float32)
    values, _, _ = sliced(x, y, np.array([[1, 0, 0]], np.float32))
    assert values[0] == pytest.approx(4)


def test_chamfer_distance_and_its_gradient_are_those_of_torch():
    x, y = clouds(seed=4), clouds(seed=5)
    value, gradient = chamfer(x, y)
    there = torch.tensor(y, requires_grad=True)
    table = (torch.tensor(x)[:, None] - there[None]).square().sum(2)
    wanted = table.min(1)[0].mean() + table.min(0)[0].mean()
    wanted.backward()
    assert value == pytest.approx(wanted.item(), rel=1e-5)
    close(gradient, there.grad)


def test_the_steepest_direction_is_where_clouds_were_pulled_apart():
    x = clouds(seed=6, points=200)
    y = x + np.float32(3) * np.array([0, 0.6, 0.8], np.float32)
    found = steepest(x, y, uniform(np.random.default_rng(0), 1))
    assert abs(found[0] @ [0, 0.6, 0.8]) > 0.99


def test_draws_of_a_high_concentration_stay_near_their_middle_and_follow_their_law():
    draw = np.random.default_rng(0)
    for kappa in (0.5, 5.0, 50.0):
        draws = heights(draw, 20_000, kappa)
        np.testing.assert_allclose(np.square(draws).sum(1), 1, rtol=1e-5)
        mean = 1 / np.tanh(kappa) - 1 / kappa  # of the cosine, of von Mises-Fisher in 3-D
        assert draws[:, 0].mean() == pytest.approx(mean, abs=0.02)
        assert np.abs(draws[:, 1:].mean(0)).max() < 0.02
        unit = np.array([0.6, 0.0, -0.8], np.float32)
        np.testing.assert_allclose(turned(draws, unit).mean(0), mean * unit, atol=0.02)


def torch_direction(matrices, x, y):
    query, key, value = (matrices[name] for name in SHAPES)
    total = 0
    for cloud in (x, y):
        asked = torch.softmax(cloud @ query.T, 1)
        kept = torch.softmax(cloud @ key.T, 0)
        total = total + (asked @ (kept.T @ (cloud @ value.T))).mean(0)
    return total / total.norm()


def torch_turned(draws, unit):
    mirror = torch.tensor([1.0, 0, 0]) - unit
    mirror = mirror / mirror.norm()
    return draws - 2 * (draws @ mirror)[:, None] * mirror


def test_the_slicer_is_differentiated_through_attention_and_reflection():
    x, y = clouds(seed=7), clouds(seed=8)
    matrices = start_of_slicer(3)
    slicer, draws = Slicer(matrices), heights(np.random.default_rng(1), 9, 4.0)
    unit, total = slicer.direction(x, y)
    values, _, turns = sliced(x, y, turned(draws, unit))
    found = slicer.gradients(x, y, total, turn_of(draws, unit, turns))
    tensors = {name: torch.tensor(m, requires_grad=True) for name, m in matrices.items()}
    towards = torch_direction(tensors, torch.tensor(x), torch.tensor(y))
    close(unit, towards)
    wanted = torch_sliced(
        torch.tensor(x), torch.tensor(y), torch_turned(torch.tensor(draws), towards)
    )
    close(values, wanted)
    wanted.sum().backward()
    for name in SHAPES:
        close(found[name], tensors[name].grad)


def test_the_slicer_knows_neither_order_of_points_nor_of_clouds():
    x, y = clouds(seed=9), clouds(seed=10)
    slicer = Slicer(start_of_slicer(0))
    unit, _ = slicer.direction(x, y)
    assert np.sqrt(np.square(unit).sum()) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(slicer.direction(y, x)[0], unit, atol=1e-6)
    np.testing.assert_allclose(slicer.direction(x[::-1], y[::-1])[0], unit, atol=1e-5)


class TorchNetwork:
    """The autoencoder again, in torch."""

    def __init__(self, shape, parameters):
        self.shape = shape
        self.tensors = {n: torch.tensor(np.array(v), requires_grad=True) for n, v in parameters}

    def stack(self, name, values):
        count = len(self.shape.layers[name]) - 1
        for number in range(count):
            weight, bias = (self.tensors[f"{name}.{number}.{p}"] for p in ("weight", "bias"))
            values = values @ weight.T + bias
            values = torch.relu(values) if number < count - 1 else values
        return values

    def __call__(self, clouds):
        codes = self.stack("encoder", clouds).max(1)[0]
        if self.shape.decoder == "mlp":
            return self.stack("decoder", codes).reshape(len(clouds), -1, 3)
        from edge_train.tasks.points.network import grid

        beside = codes[:, None].expand(-1, self.shape.points, -1)
        square = torch.tensor(grid(self.shape.points)).expand(len(clouds), -1, -1)
        folded = self.stack("fold1", torch.cat([beside, square], 2))
        return self.stack("fold2", torch.cat([beside, folded], 2))


@pytest.mark.parametrize("decoder", ["mlp", "folding"])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_an_autoencoder_has_the_gradients_of_torch_whole_or_in_parts(decoder, micro_batch):
    shape = Shape(points=20, code=6, width=8, decoder=decoder)
    parameters = Parameters(start_of(shape, 1))
    engine = CloudEngine(shape, parameters, "chamfer", 4, 1.0, micro_batch)
    some = clouds(5, seed=11)
    found = {}
    losses = engine.backward({"clouds": some, "draws": np.arange(5)}, found.__setitem__)
    twin = TorchNetwork(shape, parameters.items())
    back = twin(torch.tensor(some))
    close(Autoencoder(shape, parameters).forward(some), back)
    wanted = []
    for x, y in zip(torch.tensor(some), back, strict=True):
        table = (x[:, None] - y[None]).square().sum(2)
        wanted.append(table.min(1)[0].mean() + table.min(0)[0].mean())
    torch.stack(wanted).mean().backward()
    close(losses, torch.stack(wanted))
    assert set(found) == set(shape.shapes)
    for name, gradient in found.items():
        close(gradient, twin.tensors[name].grad)


def test_the_slicer_climbs_before_the_network_goes_down():
    parameters = Parameters(start_of(SHAPE, 1) | start_of_slicer(1))
    engine = CloudEngine(SHAPE, parameters, "v-dsw", 16, 20.0)
    batch = {"clouds": clouds(6, seed=12), "draws": np.arange(6)}
    seen = []

    def apply(name, gradient):
        seen.append(name)
        if name.startswith("slicer"):
            parameters[name][...] -= 0.5 * gradient

    before = engine.backward(batch, lambda name, gradient: None).mean()
    for _ in range(20):
        after = engine.backward(batch, apply).mean()
    assert after > before  # the network has not moved, the slicer found where clouds differ more
    first_network = next(n for n, name in enumerate(seen) if not name.startswith("slicer"))
    assert set(seen[:first_network]) == set(SHAPES)


def test_zo_and_evaluation_read_the_plain_sliced_distance_whatever_is_trained():
    parameters = Parameters(start_of(SHAPE, 1))
    batch = {"clouds": clouds(3, seed=13), "draws": np.arange(3)}
    losses = [
        CloudEngine(SHAPE, parameters, loss, 8, 1.0).forward(batch, [parameters])
        for loss in ("sliced", "chamfer", "max-sliced")
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])
    trained = CloudEngine(SHAPE, parameters, "sliced", 8, 1.0)
    np.testing.assert_allclose(
        trained.backward(batch, lambda name, gradient: None), losses[0][0], rtol=1e-5
    )
