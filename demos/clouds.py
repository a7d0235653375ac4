"""Write clouds to try with: `python demos/clouds.py FOLDER`; spheres, boxes, cones, and a skirt."""

import sys
from pathlib import Path

import numpy as np


def cloud(kind, points, draw):
    found = draw.standard_normal((points, 3))
    found /= np.sqrt(np.square(found).sum(axis=1, keepdims=True))
    if kind == "box":
        found /= np.abs(found).max(axis=1, keepdims=True)
    if kind == "cone":
        found[:, [0, 2]] *= (1 - found[:, 1:2]) / 2
    return found * draw.uniform(0.4, 1, 3)


def skirt(points, draw):
    """Return points of a pleated skirt: open above and below."""
    around, down = draw.uniform(0, 2 * np.pi, points), draw.random(points)
    radius = 0.35 + 0.6 * down + 0.12 * down * np.cos(7 * around)
    return np.stack([radius * np.cos(around), 0.6 - 1.2 * down, radius * np.sin(around)], axis=1)


folder = Path(sys.argv[1])
(folder / "clouds").mkdir(parents=True, exist_ok=True)
draw = np.random.default_rng(0)
for number in range(120):
    kind = ("sphere", "box", "cone")[number % 3]
    points = cloud(kind, 600, draw)
    np.savetxt(folder / "clouds" / f"{kind}-{number:03d}.xyz", points, fmt="%.5f")
np.savetxt(folder / "skirt.xyz", skirt(10_000, draw), fmt="%.5f")
line = np.linspace(-1, 1, 600)
np.savetxt(folder / "stick.xyz", np.stack([line, 0 * line, 0 * line], axis=1), fmt="%.5f")
