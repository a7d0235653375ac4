"""Meshes of unsigned fields: open surfaces keep their borders, closed ones have none."""

import numpy as np
import pytest
from small_clouds import bowl

from edge_train.arrays.nearest import nearest, neighbors
from edge_train.rng import Key
from edge_train.tasks.surface.denser import denser, normals_of
from edge_train.tasks.surface.mesh import border_loops, edges_of, mesh_of, turned_alike
from edge_train.tasks.surface.objective import Queries


def slopes_of_sphere(points):
    far = np.sqrt(np.square(points).sum(1))
    away = far - 1
    unit = points / far[:, None]
    return np.abs(away), unit * np.where(away < 0, -1, 1)[:, None]


def slopes_of_bowl(points):
    """Return those of the lower half of a sphere: above, the nearest point is on its rim."""
    distance, slope = slopes_of_sphere(points)
    flat = points * [1, 0, 1]
    rim = flat / np.maximum(np.sqrt(np.square(flat).sum(1)), 1e-9)[:, None]
    above = points[:, 1] > 0
    ahead = points - rim
    to_rim = np.sqrt(np.square(ahead).sum(1))
    distance = np.where(above, to_rim, distance)
    slope = np.where(above[:, None], ahead / np.maximum(to_rim, 1e-9)[:, None], slope)
    return distance, slope


def sphere(points=4000):
    found = np.random.default_rng(0).standard_normal((points, 3)).astype(np.float32)
    return found / np.sqrt(np.square(found).sum(1, keepdims=True))


def test_a_closed_surface_is_meshed_without_a_border_and_lies_on_it():
    corners, triangles = mesh_of(slopes_of_sphere, sphere(), 24)
    assert border_loops(triangles) == (0, 0)
    np.testing.assert_allclose(np.sqrt(np.square(corners).sum(1)), 1, atol=0.01)
    assert len(corners) - len(edges_of(triangles)[0]) + len(triangles) == 2  # Euler: a sphere


def test_its_triangles_all_face_one_side():
    corners, triangles = mesh_of(slopes_of_sphere, sphere(), 16)
    a, b, c = (corners[triangles[:, n]] for n in range(3))
    outward = (np.cross(b - a, c - a) * a).sum(1)
    assert (outward > 0).all() or (outward < 0).all()
    shuffled = triangles.copy()
    shuffled[::3] = shuffled[::3, ::-1]
    again = turned_alike(shuffled)
    pairs = np.concatenate([again[:, [0, 1]], again[:, [1, 2]], again[:, [2, 0]]])
    assert len(np.unique(pairs, axis=0)) == len(pairs)  # no edge is gone along twice


def test_an_open_surface_keeps_one_border_where_marching_cubes_would_close_it():
    points = bowl(6000).astype(np.float32)
    corners, triangles = mesh_of(slopes_of_bowl, points, 24)
    loops, edges = border_loops(triangles)
    assert loops == 1 and edges > 30
    side = 2 / 24
    assert corners[:, 1].max() < 1.5 * side  # nothing above the rim
    _, far = nearest(points, corners.astype(np.float32))
    assert far.max() < 1.5 * side


def test_denser_points_lie_on_the_surface_with_its_normals():
    points = sphere(2000)
    near = neighbors(points, 11)
    apart = np.sqrt(np.square(points[near] - points[:, None]).sum(2).max(1))
    queries = Queries(points, near, apart, 100, 100)

    def slopes(where):
        distance, slope = slopes_of_sphere(where)
        return distance.astype(np.float32), slope.astype(np.float32)

    more, normals = denser(slopes, queries.around, 5000)
    assert more.shape == normals.shape == (5000, 3)
    np.testing.assert_allclose(np.sqrt(np.square(more).sum(1)), 1, atol=1e-5)
    assert np.abs((more * normals).sum(1)).min() > 0.999
    of_points = normals_of(slopes, points, queries.spread)
    assert np.abs((points * of_points).sum(1)).min() > 0.99


def test_the_nearest_point_of_a_query_is_found_among_neighbors():
    points = sphere(800)
    near = neighbors(points, 51)
    for row in (0, 400):
        wanted = np.square(points - points[row]).sum(1).argsort()[:51]
        assert set(near[row].tolist()) == set(wanted.tolist())
    apart = np.sqrt(np.square(points[near] - points[:, None]).sum(2).max(1))
    batch = Queries(points, near, apart, 500, 10).batch(Key(1, 2))
    _, wanted = nearest(batch["queries"], points)
    found = np.sqrt(np.square(batch["queries"] - batch["near"]).sum(1))
    assert (found < wanted + 1e-6).mean() > 0.99
    np.testing.assert_array_equal(
        batch["queries"], Queries(points, near, apart, 500, 10).batch(Key(1, 2))["queries"]
    )


@pytest.mark.parametrize("count", [1, 700, 3000])
def test_nearest_points_are_those_of_all_distances(count):
    draw = np.random.default_rng(count)
    a, b = draw.random((count, 3), np.float32), draw.random((500, 3), np.float32)
    which, far = nearest(a, b)
    table = np.sqrt(np.square(a[:, None] - b[None]).sum(2))
    np.testing.assert_allclose(far, table.min(1), atol=1e-5)
    np.testing.assert_allclose(table[np.arange(count), which], table.min(1), atol=1e-5)
