"""The field's losses and second derivatives against torch's double backward."""

import numpy as np
import pytest
import torch

from edge_train.arrays.parameters import Parameters
from edge_train.tasks.surface.engine import FieldEngine
from edge_train.tasks.surface.field import Field, Shape, start_of
from edge_train.tasks.surface.losses import AGREE, AGREE_FALL, AIM, SURFACE

SHAPE = Shape(width=16, layers=8)


def a_field(seed=0):
    """Return parameters that differ from the start: a sphere has few kinks."""
    draw = np.random.default_rng(seed)
    values = start_of(SHAPE, seed)
    for value in values.values():
        value += 0.2 * draw.standard_normal(value.shape).astype(np.float32)
    return Parameters(values)


def a_batch(count=40, seed=1):
    draw = np.random.default_rng(seed)
    near, surface = draw.uniform(-1, 1, (2, count, 3)).astype(np.float32)
    queries = near + 0.1 * draw.standard_normal((count, 3)).astype(np.float32)
    return {"queries": queries, "near": near, "surface": surface}


class TorchField:
    """The network of the published code, in torch."""

    def __init__(self, parameters):
        self.tensors = {n: torch.tensor(np.array(v), requires_grad=True) for n, v in parameters}

    def __call__(self, points):
        values = points
        for number in range(SHAPE.layers + 1):
            parts = (self.tensors[f"{number}.{p}"] for p in ("direction", "length", "bias"))
            direction, length, bias = parts
            if number == SHAPE.again:
                values = torch.cat([values, points], 1) / np.sqrt(2)
            matrix = direction * (length / direction.norm(dim=1))[:, None]
            values = values @ matrix.T + bias
            values = torch.relu(values) if number < SHAPE.layers else values
        return values[:, 0].abs()

    def slope(self, points):
        return torch.autograd.grad(self(points).sum(), points, create_graph=True)[0]


def torch_loss(field, batch):
    queries, near, surface = (torch.tensor(batch[n]) for n in ("queries", "near", "surface"))
    queries.requires_grad_(True)
    unit = torch.nn.functional.normalize(field.slope(queries), dim=1)
    distance = field(queries)
    moved = queries - unit * distance[:, None]
    there = torch.nn.functional.normalize(field.slope(moved), dim=1)
    cosine = torch.nn.functional.cosine_similarity
    agree = (1 - cosine(there, unit).abs()) * torch.exp(-AGREE_FALL * distance)
    away = torch.nn.functional.normalize(queries - near, dim=1)
    aim = 1 - cosine(unit, away).abs()
    table = (moved[:, None] - near[None]).square().sum(2)
    ends = (table.min(1)[0] + 1e-20).sqrt(), (table.min(0)[0] + 1e-20).sqrt()
    chamfer = (ends[0].mean() + ends[1].mean()) / 2
    return chamfer + AGREE * agree.mean() + SURFACE * field(surface).mean() + AIM * aim.mean()


def test_distances_and_slopes_are_those_of_torch():
    parameters, points = a_field(), a_batch()["queries"]
    tape = Field(SHAPE, parameters).at(points)
    twin, there = TorchField(parameters.items()), torch.tensor(points, requires_grad=True)
    np.testing.assert_allclose(tape.distance, twin(there).detach(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(tape.slope, twin.slope(there).detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_second_derivatives_are_those_of_double_backward_whole_or_in_parts(micro_batch):
    parameters, batch = a_field(), a_batch()
    engine, found = FieldEngine(SHAPE, parameters, "level-set", micro_batch), {}
    losses = engine.backward(batch, found.__setitem__)
    twin = TorchField(parameters.items())
    wanted = torch_loss(twin, batch)
    wanted.backward()
    assert losses.mean() == pytest.approx(wanted.item(), rel=1e-4)
    assert set(found) == set(SHAPE.shapes)
    for name, gradient in found.items():
        there = twin.tensors[name].grad.numpy()
        scale = np.abs(there).max()
        np.testing.assert_allclose(gradient, there, atol=2e-3 * scale + 1e-7, err_msg=name)


def test_the_gradient_of_a_slope_alone_is_that_of_double_backward():
    parameters, batch = a_field(2), a_batch(20, 3)
    field = Field(SHAPE, parameters)
    tape, total = field.at(batch["queries"]), {}
    asked = np.random.default_rng(4).standard_normal((20, 3)).astype(np.float32)
    field.add_gradients(tape, np.zeros(20, np.float32), asked, total)
    found = field.gradients(total)
    twin, there = TorchField(parameters.items()), torch.tensor(batch["queries"])
    there.requires_grad_(True)
    (twin.slope(there) * torch.tensor(asked)).sum().backward()
    for name in SHAPE.shapes:
        wanted = twin.tensors[name].grad
        wanted = np.zeros(SHAPE.shapes[name]) if wanted is None else wanted.numpy()
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found[name], wanted, atol=2e-3 * scale + 1e-6, err_msg=name)


def test_the_plain_field_learns_distances_by_the_gradient_of_torch():
    parameters, batch = a_field(5), a_batch(30, 6)
    engine, found = FieldEngine(SHAPE, parameters, "distance", 8), {}
    losses = engine.backward(batch, found.__setitem__)
    twin = TorchField(parameters.items())
    queries, near, surface = (torch.tensor(batch[n]) for n in ("queries", "near", "surface"))
    wrong = (twin(queries) - (queries - near).norm(dim=1)).abs().mean()
    wanted = wrong + SURFACE * twin(surface).mean()
    wanted.backward()
    assert losses.mean() == pytest.approx(wanted.item(), rel=1e-4)
    for name, gradient in found.items():
        there = twin.tensors[name].grad.numpy()
        np.testing.assert_allclose(
            gradient, there, atol=2e-3 * np.abs(there).max() + 1e-7, err_msg=name
        )


def test_losses_at_points_are_those_of_backward():
    parameters, batch = a_field(7), a_batch(25, 8)
    engine = FieldEngine(SHAPE, parameters, "level-set")
    whole = engine.backward(batch, lambda name, gradient: None)
    engine.batch_limit = 4
    np.testing.assert_allclose(engine.forward(batch, [parameters])[0], whole, rtol=1e-4, atol=1e-6)
