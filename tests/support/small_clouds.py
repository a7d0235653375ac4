"""Clouds for tests: spheres and boxes in a folder, half a sphere as one open scan."""

import numpy as np

from edge_train.formats.clouds.ply import write_ply


def write_clouds(folder, count=24, points=120, far=0.0, size=1.0):
    """Write spheres and boxes, stretched by chance, as .ply files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for number in range(count):
        cloud = draw.standard_normal((points, 3))
        cloud /= np.sqrt(np.square(cloud).sum(1, keepdims=True))
        if number % 2:
            cloud /= np.abs(cloud).max(1, keepdims=True)
        cloud *= size * draw.uniform(0.3, 1, 3)
        write_ply(folder / f"{number:02d}.ply", cloud + far)
    return folder


def bowl(points, seed=0):
    """Return points on the lower half of a sphere of radius 1: one border, a circle."""
    found = np.random.default_rng(seed).standard_normal((points, 3))
    found /= np.sqrt(np.square(found).sum(1, keepdims=True))
    found[:, 1] = -np.abs(found[:, 1])
    return found


def write_bowl(path, points=1500, far=0.0, size=1.0):
    """Write a bowl as text."""
    np.savetxt(path, far + size * bowl(points), fmt="%.12g")
    return path
